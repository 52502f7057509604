#!/usr/bin/env python3
"""Holds that no page points to a file that is not there."""

import pathlib
import re
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)|^\[[^\]]+\]:\s+(?!https?:)(\S+)", re.M)


def dead_links(page, text):
    for match in LINK.finditer(text):
        target = match[1] or match[2]
        if not (page.parent / target).exists():
            yield f"{page.relative_to(ROOT)}: {target}"


class Docs(unittest.TestCase):
    def test_every_link_between_pages_leads_to_a_file(self):
        pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("perf/**/*.md"),
                 *ROOT.glob("examples/**/*.md")]
        self.assertGreater(len(pages), 3)
        found = [line for page in pages for line in dead_links(page, page.read_text())]
        self.assertEqual(found, [], "\n" + "\n".join(found))

    def test_a_dead_link_is_found(self):
        page = ROOT / "README.md"
        text = "[a](LICENSE) [b](https://x/y) [c](gone.md#part)\n\n[d]: gone.png\n"
        self.assertEqual(
            list(dead_links(page, text)), ["README.md: gone.md", "README.md: gone.png"]
        )


if __name__ == "__main__":
    unittest.main()
