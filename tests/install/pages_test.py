#!/usr/bin/env python3
"""Holds that manual and completion say what `slip --help` says. pages_test.py SLIP PAGES"""

import pathlib
import re
import shutil
import subprocess
import sys
import unittest

SLIP = PAGES = None


def run(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def commands():
    text = run(SLIP, "--help").split("Subcommands:")[1]
    return re.findall(r"^  (\w+) ", text, re.M)


def options(command):
    found = re.findall(r"(?:^|,)\s*(?:-\w,)?(--[\w-]+)", run(SLIP, command, "--help"), re.M)
    return set(found) - {"--help", "--version"}


def page(name):
    return (PAGES / f"{name}.1").read_text().replace("\\-", "-")


def complete(*words):
    line = " ".join(f"'{word}'" for word in words)
    script = (
        f"source {PAGES}/slip.bash; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _slip; "
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    return run("bash", "-c", script).split()


class Pages(unittest.TestCase):
    def test_every_command_has_a_page_with_all_its_options(self):
        self.assertGreater(len(commands()), 4)
        for command in commands():
            self.assertGreater(len(options(command)), 3, command)
            missing = {o for o in options(command) if not re.search(o + r"\b", page(f"slip-{command}"))}
            self.assertEqual(missing, set(), command)
            self.assertIn(f"slip {command}", page("slip"))

    def test_the_page_of_train_has_all_protocols_and_their_options(self):
        text = page("slip-train")
        self.assertIn(".SS hop", text)
        self.assertIn("max_gap=5", text)
        for protocol in re.findall(r"Protocols: (.*)", run(SLIP, "compare", "--help"))[0].split(", "):
            self.assertIn(f".SS {protocol}\n", text)

    def test_the_pages_are_good_roff(self):
        if not shutil.which("groff"):
            self.skipTest("no groff here")
        for file in sorted(PAGES.glob("*.1")):
            done = subprocess.run(
                ["groff", "-man", "-ww", "-z", "-Tutf8", file], capture_output=True, text=True
            )
            self.assertEqual(done.stderr, "", file)

    def test_what_completion_knows_of_values_is_in_the_help(self):
        text = run(SLIP, "train", "--help")
        for option in ("--task", "--model", "--partition", "--lr-schedule", "--target"):
            values = complete("slip", "train", option, "")
            self.assertGreater(len(values), 1, option)
            for value in values:
                self.assertIn(value, text, option)

    def test_completion_knows_commands_options_and_values(self):
        self.assertEqual(complete("slip", "tr"), ["train"])
        self.assertEqual(complete("slip", "train", "--weig"), ["--weight-decay", "--weights"])
        self.assertEqual(complete("slip", "train", "--weights", "m"), ["metropolis"])
        self.assertEqual(complete("slip", "train", "--protocol", "ho"), ["hop"])
        self.assertIn("ring", complete("slip", "train", "--graph", ""))
        self.assertEqual(complete("slip", "train", "--task", "m"), ["mnist:", "movielens:"])
        self.assertEqual(complete("slip", "train", "--task", "=", "dig"), ["digits"])
        self.assertEqual(complete("slip", "train", "--set", "max_g"), ["max_gap="])
        self.assertEqual(complete("slip", "perf", "tok"), ["token"])
        for command in commands():
            self.assertLessEqual(options(command), set(complete("slip", command, "--")), command)


if __name__ == "__main__":
    PAGES = pathlib.Path(sys.argv.pop())
    SLIP = sys.argv.pop()
    unittest.main()
