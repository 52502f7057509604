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


class Docs(unittest.TestCase):
    def test_every_link_between_pages_leads_to_a_file(self):
        pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("perf/**/*.md")]
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
