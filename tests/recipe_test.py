#!/usr/bin/env python3
"""Holds that recipe and pages have a variant for each SLIP_WITH_* of the build, and no other."""

import pathlib
import re
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent


class Recipe(unittest.TestCase):
    def test_variants_and_options_of_the_build_are_the_same(self):
        recipe = (ROOT / "tools/spack/slipstream/package.py").read_text()
        compile(recipe, "package.py", "exec")
        variants = set(re.findall(r'^    variant\("(\w+)"', recipe, re.M)) - {"shared"}
        passed = dict(re.findall(r'define_from_variant\("SLIP_WITH_(\w+)", "(\w+)"\)', recipe))
        files = [ROOT / "CMakeLists.txt", *ROOT.glob("cmake/*.cmake"), *ROOT.glob("*/**/CMakeLists.txt")]
        options = {
            name
            for file in files
            if "build" not in file.relative_to(ROOT).parts
            for name in re.findall(r"(?:option|set)\(SLIP_WITH_(\w+)", file.read_text())
        }
        self.assertGreaterEqual(len(options), 2)
        self.assertEqual(set(passed), options)
        self.assertEqual(passed, {name: name.lower() for name in options})
        self.assertEqual(variants, {name.lower() for name in options})
        table = dict(re.findall(r"^\| `SLIP_WITH_(\w+)` \|.*\| `(\w+)` \|$",
                                (ROOT / "docs/using.md").read_text(), re.M))
        self.assertEqual(table, passed)

    def test_its_version_is_the_projects(self):
        recipe = (ROOT / "tools/spack/slipstream/package.py").read_text()
        version = re.search(r"project\(Slipstream VERSION ([\d.]+)", (ROOT / "CMakeLists.txt").read_text())
        self.assertIn(f'version("{version[1]}")', recipe)


if __name__ == "__main__":
    unittest.main()
