#!/usr/bin/env python3
"""Holds that no page points to a file that is not there, or shows code that is not."""

import pathlib
import re
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)|^\[[^\]]+\]:\s+(?!https?:)(\S+)", re.M)
CODE = re.compile(r"^<!-- code: (\S+) -->\n```\w*\n(.*?)^```$", re.M | re.S)
FENCED = re.compile(r"^```.*?^```$", re.M | re.S)


def dead_links(page, text):
    for match in LINK.finditer(FENCED.sub("", text)):
        target = match[1] or match[2]
        if not (page.parent / target).exists():
            yield f"{page.relative_to(ROOT)}: {target}"


STRING = re.compile(r'"(?:[^"\\\n]|\\.)*"')


def texts(source):
    """What the code of a source says: its strings, those that follow each other as one."""
    code = re.sub(r"^\s*(//.*|#include.*)$", "", source, flags=re.M)
    joined = re.sub(r'(?<!\\)"\s*\n\s*"', "", code)
    return [match[0][1:-1].replace('\\"', '"') for match in STRING.finditer(joined)]


def quoted_messages(page):
    """The messages that headings of the page quote, each as the pieces between its gaps."""
    for heading in re.findall(r"^### (.*)$", page, re.M):
        for message in re.findall(r"`([^`]+)`", heading):
            yield message, [piece.strip(" ") for piece in message.split("…") if piece.strip(" :;()")]


def says(text, pieces):
    at = 0
    for piece in pieces:
        at = text.find(piece, at)
        if at < 0:
            return False
        at += len(piece)
    return True


class Docs(unittest.TestCase):
    def test_every_message_that_troubleshooting_quotes_is_one_of_ours(self):
        said = [
            text
            for folder in ("base", "gpu", "transport", "kernels", "runtime", "collectives", "trainer",
                           "tools", "cmake")
            for suffix in ("*.cc", "*.cmake")
            for path in (ROOT / folder).rglob(suffix)
            for text in texts(path.read_text())
        ]
        messages = list(quoted_messages((ROOT / "docs/troubleshooting.md").read_text()))
        self.assertGreater(len(messages), 20)
        unknown = [
            message for message, pieces in messages if not any(says(text, pieces) for text in said)
        ]
        self.assertEqual(unknown, [], "\n" + "\n".join(unknown))

    def test_a_message_is_found_in_pieces_of_strings(self):
        said = texts('fmt::format("rank {}: no "\n    "disk", r); f("x \\"y\\"");')
        self.assertEqual(said, ["rank {}: no disk", 'x "y"'])
        self.assertTrue(says(said[0], ["rank", ": no disk"]))
        self.assertFalse(says(said[0], [": no disk", "rank"]))

    def test_every_link_between_pages_leads_to_a_file(self):
        pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("perf/**/*.md"),
                 *ROOT.glob("examples/**/*.md")]
        self.assertGreater(len(pages), 3)
        found = [line for page in pages for line in dead_links(page, page.read_text())]
        self.assertEqual(found, [], "\n" + "\n".join(found))

    def test_code_on_pages_is_that_of_the_tree(self):
        shown = [match for page in ROOT.glob("docs/*.md") for match in CODE.finditer(page.read_text())]
        self.assertGreater(len(shown), 3)
        for match in shown:
            self.assertIn(match[2], (ROOT / match[1]).read_text())

    def test_a_dead_link_is_found(self):
        page = ROOT / "README.md"
        text = "[a](LICENSE) [b](https://x/y) [c](gone.md#part)\n\n[d]: gone.png\n"
        self.assertEqual(
            list(dead_links(page, text)), ["README.md: gone.md", "README.md: gone.png"]
        )


if __name__ == "__main__":
    unittest.main()
