#!/usr/bin/env python3
"""Holds the house's order: which file may include what."""

import pathlib
import re
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent
LAYERS = ["base", "gpu", "transport", "kernels", "runtime", "collectives", "trainer", "c_api",
          "mpi", "perf", "tools"]
SUFFIXES = {".h", ".cc", ".cu", ".c"}

INCLUDE = re.compile(r'^\s*#\s*include\s*(?:"(?P<quoted>[^"]+)"|<(?P<angled>[^>]+)>)', re.M)
OURS = re.compile(r"slipstream/(?:(?P<layer>\w+)/[\w/]+\.h|version\.h)")
# Public headers may use the standard library and the system, and nothing that a user would have to
# install: a name without a folder, or one of the system's folders.
SYSTEM = re.compile(r"[\w.]+|(sys|linux|netinet)/[\w.]+")
LIBTORCH = re.compile(r"(torch|ATen|c10)/")


def is_public(path):
    """Is `path`, relative to the root, a header that is installed?"""
    return (
        path.endswith(".h")
        and not path.endswith("_internal.h")
        and not path.startswith(("trainer/tasks/", "perf/", "tools/"))
    )


def violation(path, quoted, angled):
    """What is wrong with one include of the file `path`, or None."""
    layer = path.split("/")[0]
    if quoted:
        if quoted == "slipstream.h":
            quoted = "slipstream/c_api/slipstream.h"
        ours = OURS.fullmatch(quoted)
        if not ours:
            return 'not spelled "slipstream/<layer>/<name>.h"'
        target = ours["layer"]
        if target is None:
            return None
        if target not in LAYERS:
            return f"no such layer: {target}"
        if LAYERS.index(target) > LAYERS.index(layer):
            return f"{layer} stands below {target}"
        of_tasks = quoted.startswith("slipstream/trainer/tasks/")
        if of_tasks and layer == "trainer" and not path.startswith("trainer/tasks/"):
            return "the library does not know the tasks of slip train"
        if is_public(path) and quoted.endswith("_internal.h"):
            return "a public header includes an internal one"
        return None
    if LIBTORCH.match(angled) and not path.startswith("trainer/tasks/"):
        return "LibTorch is for trainer/tasks alone"
    if is_public(path) and not SYSTEM.fullmatch(angled):
        return "a public header includes what users would have to install"
    return None


def violations(path, text):
    for match in INCLUDE.finditer(text):
        problem = violation(path, match["quoted"], match["angled"])
        if problem:
            line = text.count("\n", 0, match.start("quoted" if match["quoted"] else "angled")) + 1
            yield f"{path}:{line}: {match['quoted'] or match['angled']}: {problem}"


class Layers(unittest.TestCase):
    def test_no_file_of_the_tree_breaks_the_order(self):
        paths = [
            path
            for layer in LAYERS
            for path in sorted((ROOT / layer).rglob("*"))
            if path.suffix in SUFFIXES
        ]
        self.assertGreater(len(paths), 20)
        found = [
            line
            for path in paths
            for line in violations(path.relative_to(ROOT).as_posix(), path.read_text())
        ]
        self.assertEqual(found, [], "\n" + "\n".join(found))

    def test_internal_headers_of_the_library_hide_what_they_declare(self):
        for path in sorted(ROOT.glob("*/**/*_internal.h")):
            name = path.relative_to(ROOT).as_posix()
            if name.split("/")[0] in LAYERS[:-2] and not name.startswith("trainer/tasks/"):
                text = path.read_text()
                hidden = "#pragma GCC visibility push(hidden)\n\n"
                self.assertIn(hidden, text, name)
                self.assertTrue(text.endswith("\n\n#pragma GCC visibility pop\n"), name)
                self.assertNotIn("#include", text[text.index(hidden):], name)

    def check(self, path, include, problem):
        found = list(violations(path, f"#pragma once\n\n#include {include}\n"))
        if problem is None:
            self.assertEqual(found, [])
        else:
            self.assertEqual(len(found), 1)
            self.assertIn(f"{path}:3: ", found[0])
            self.assertIn(problem, found[0])

    def test_an_include_of_a_layer_above_is_found(self):
        self.check("base/a.h", '"slipstream/runtime/world.h"', "stands below")
        self.check("runtime/a.cc", '"slipstream/base/error.h"', None)
        self.check("runtime/a.cc", '"slipstream/runtime/world.h"', None)

    def test_an_unusual_spelling_is_found(self):
        self.check("runtime/a.cc", '"world.h"', "not spelled")
        self.check("runtime/a.cc", '"slipstream/attic/a.h"', "no such layer")
        self.check("runtime/a.cc", '"slipstream/version.h"', None)
        self.check("runtime/a.cc", '"slipstream.h"', "stands below")
        self.check("c_api/a.cc", '"slipstream.h"', None)

    def test_internals_that_a_public_header_shows_are_found(self):
        self.check("runtime/a.h", '"slipstream/base/b_internal.h"', "internal")
        self.check("runtime/a_internal.h", '"slipstream/base/b_internal.h"', None)
        self.check("runtime/a.h", "<fmt/format.h>", "would have to install")
        self.check("runtime/a.h", "<sys/types.h>", None)
        self.check("runtime/a.cc", "<fmt/format.h>", None)

    def test_libtorch_outside_the_tasks_is_found(self):
        self.check("trainer/a.cc", "<torch/torch.h>", "LibTorch")
        self.check("trainer/tasks/a.cc", "<torch/torch.h>", None)
        self.check("trainer/a.cc", '"slipstream/trainer/tasks/digits.h"', "does not know")
        self.check("tools/slip/a.cc", '"slipstream/trainer/tasks/digits.h"', None)


if __name__ == "__main__":
    unittest.main()
