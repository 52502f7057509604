#!/usr/bin/env python3
"""Tells how the tests went, out of the JUnit files that ctest wrote: what failed with its output,
what was skipped and why, and as the last line `N passed, N failed, N skipped` over all runs."""

import argparse
import collections
import pathlib
import re
import sys
import textwrap
import xml.etree.ElementTree

SKIPPED = re.compile(r"^.*: Skipped\n(?P<reason>.*?)^\[  SKIPPED \]", re.M | re.S)  # GoogleTest's
SCRIPT_SKIPPED = re.compile(r"^skipped: (?P<reason>.*)", re.M)
OUTPUT_LINES = 60


def outcome(case):
    """"passed", "failed" or "skipped". ctest's "notrun" also covers programs that are missing."""
    status = case.get("status")
    if status == "run":
        return "passed"
    if status == "disabled":
        return "skipped"
    skipped = case.find("skipped")
    if status == "notrun" and skipped is not None and skipped.get("message").startswith("SKIP_"):
        return "skipped"
    return "failed"


def reason(case):
    if case.get("status") == "disabled":
        return "disabled in the source"
    output = case.findtext("system-out") or ""
    match = SKIPPED.search(output) or SCRIPT_SKIPPED.search(output)
    words = " ".join(match["reason"].split()) if match else ""
    return words or "no reason given"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--failed", action="append", default=[], help="a step that failed")
    parser.add_argument("folder", type=pathlib.Path, help="of the JUnit files, one per preset")
    arguments = parser.parse_args()

    counts = collections.Counter(failed=len(arguments.failed))
    failures = list(arguments.failed)
    skips = collections.defaultdict(list)  # (reason, test): presets
    for file in sorted(arguments.folder.glob("*.xml")):
        for case in xml.etree.ElementTree.parse(file).getroot().iter("testcase"):
            result = outcome(case)
            counts[result] += 1
            if result == "skipped":
                skips[reason(case), case.get("name")].append(file.stem)
            elif result == "failed":
                seconds = float(case.get("time"))
                output = (case.findtext("system-out") or "").rstrip().splitlines()
                failures.append(f"{case.get('name')} ({file.stem})")
                print(f"\nFAILED {case.get('name')} ({file.stem}, {seconds:.1f} s)")
                print("\n".join("  " + line for line in output[-OUTPUT_LINES:]))

    if skips:
        print("\nSkipped:")
        together = collections.defaultdict(list)
        for (why, name), presets in sorted(skips.items()):
            together[why, ", ".join(presets)].append(name)
        for (why, presets), names in together.items():
            print(f"  {why} ({presets}):")
            print(textwrap.fill(", ".join(names), 100, initial_indent="    ",
                                subsequent_indent="    ", break_long_words=False))
    if failures:
        print("\nFailed:", *failures, sep="\n  ")
    print(f"\n{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped")
    return counts["failed"] > 0 or counts["passed"] == 0


if __name__ == "__main__":
    sys.exit(main())
