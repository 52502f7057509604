#!/usr/bin/env python3
"""Holds that libslipstream exports the documented interface and nothing else.

symbols_test.py LIBRARY            compares with tests/install/symbols.txt
symbols_test.py LIBRARY --update   writes that list anew: a line that goes is a broken ABI
"""

import pathlib
import re
import subprocess
import sys
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
LIST = pathlib.Path(__file__).resolve().parent / "symbols.txt"
LAYERS = ["base", "gpu", "transport", "kernels", "runtime", "collectives", "trainer", "c_api"]
LIBRARY = None


def exported():
    """[(kind, name)], as users call them: without the version, and one for all of a constructor's."""
    lines = subprocess.run(
        ["nm", "-DC", "--defined-only", LIBRARY], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    found = set()
    for line in lines:
        _, kind, name = line.split(" ", 2)
        name = re.sub(r"@@?SLIPSTREAM_[\d.]+$", "", name).replace("[abi:cxx11]", "")
        if kind != "A":  # the version itself
            found.add((kind, name))
    return sorted(found, key=lambda symbol: symbol[1])


def interface():
    """What the list holds: functions and data. What inline code and tables add follows of them."""
    return [name for kind, name in exported() if kind in "TDBR"]


def public_text():
    return "\n".join(
        path.read_text()
        for layer in LAYERS
        for path in sorted((ROOT / layer).rglob("*.h"))
        if not path.name.endswith("_internal.h") and "tasks" not in path.parts
    )


def names_of(symbol):
    """The class and the function of a demangled symbol."""
    for table in ("typeinfo for ", "typeinfo name for ", "vtable for ", "VTT for "):
        symbol = symbol.removeprefix(table)
    while "<" in symbol.split("(")[0]:
        symbol = re.sub(r"<[^<>]*>", "", symbol, count=1)
    return [part.removeprefix("~") for part in symbol.split("(")[0].split("::")[-2:]]


class Symbols(unittest.TestCase):
    def test_the_c_api_is_what_its_header_declares(self):
        header = (ROOT / "c_api/slipstream.h").read_text()
        code = re.sub(r"/\*.*?\*/", "", header, flags=re.S)
        declared = set(re.findall(r"\b(slip_\w+)\(", code))
        self.assertGreater(len(declared), 40)
        found = {name for name in interface() if not name.startswith("slip::")}
        self.assertEqual(found ^ declared, set())

    def test_what_is_exported_stands_in_a_public_header(self):
        words = set(re.findall(r"\w+", public_text()))
        undocumented = [
            name
            for _, name in exported()
            if any(part not in words and not part.startswith("operator") for part in names_of(name))
        ]
        self.assertEqual(undocumented, [])

    def test_the_interface_is_the_one_on_record(self):
        before, now = set(LIST.read_text().splitlines()), set(interface())
        self.assertEqual(
            (sorted(before - now), sorted(now - before)),
            ([], []),
            "gone from, and new in, tests/install/symbols.txt; if that is meant (docs/versions.md): "
            f"{sys.argv[0]} {LIBRARY} --update",
        )

    def test_the_names_of_a_symbol_are_found(self):
        self.assertEqual(names_of("slip::A::b(std::vector<int> const&)"), ["A", "b"])
        self.assertEqual(names_of("typeinfo name for slip::B<slip::A>"), ["slip", "B"])
        self.assertEqual(names_of("slip::C<void ()>::~C()"), ["C", "C"])


if __name__ == "__main__":
    LIBRARY = sys.argv.pop(1)
    if "--update" in sys.argv:
        LIST.write_text("\n".join(interface()) + "\n")
    else:
        unittest.main()
