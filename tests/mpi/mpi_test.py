#!/usr/bin/env python3
"""`slip` and worlds out of MPI's communicators under mpirun. Usage: FILE SLIP FROM_MPI_PROGRAM"""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

SLIP = pathlib.Path("slip")
PROGRAM = pathlib.Path("from_mpi_program")
SKIPPED = 77
PATIENCE = 120  # seconds; what is not done then hangs
ENVIRONMENT = {
    **os.environ,
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "OMPI_MCA_btl": "self,vader",
    "OMPI_MCA_plm_rsh_agent": "/bin/false",  # one host: no ssh
}
TRAIN = ["train", "--task", "digits", "--bind", "none"]


class Mpirun(unittest.TestCase):
    def setUp(self):
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.folder = pathlib.Path(holder.name).resolve()

    def start(self, workers, *words):
        return subprocess.Popen(
            ["mpirun", "-n", str(workers), *map(str, words)], cwd=self.folder, env=ENVIRONMENT,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def run_to_end(self, workers, *words):
        process = self.start(workers, *words)
        out, error = process.communicate(timeout=PATIENCE)
        return process.returncode, out, error

    def workers(self):
        found = []
        for process in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                if (process / "comm").read_text().strip() == "slip" and \
                        pathlib.Path(os.readlink(process / "cwd")) == self.folder:
                    found.append(int(process.name))
            except OSError:
                pass  # it has ended
        return found

    def test_trains_to_the_target(self):
        code, _, error = self.run_to_end(
            4, SLIP, *TRAIN, "--target", "accuracy=0.9", "--iterations", "2000", "--report",
            "report.json")
        self.assertEqual(code, 0, error)
        report = json.loads((self.folder / "report.json").read_text())
        self.assertEqual(report["workers"], 4)
        self.assertIsNotNone(report["target"]["reached_at_seconds"])

    def test_microbenchmarks_run_over_all_and_between_any_two(self):
        for test in (["all-reduce"], ["put", "--between", "3,1"],
                     ["put", "--between", "0,2", "--transport", "ucx"]):
            code, _, error = self.run_to_end(
                4, SLIP, "perf", *test, "-b", "8", "-e", "4K", "-f", "8", "-n", "20", "-w", "5", "-J",
                "rows.json")
            self.assertEqual(code, 0, error)
            rows = json.loads((self.folder / "rows.json").read_text())["rows"]
            self.assertEqual({row["wrong"] for row in rows}, {0})
            self.assertGreater(min(row["min"] for row in rows), 0)

    @unittest.skipUnless(shutil.which("prterun"), "prterun not installed (it comes with OpenMPI 5)")
    def test_prterun_starts_it_too(self):
        done = subprocess.run(
            ["prterun", "--map-by", ":OVERSUBSCRIBE", "-n", "4", SLIP, *TRAIN, "--iterations", "20",
             "--report", "report.json"],
            cwd=self.folder, check=False, capture_output=True, text=True, timeout=PATIENCE,
            env={**os.environ, "PRTE_ALLOW_RUN_AS_ROOT": "1", "PRTE_ALLOW_RUN_AS_ROOT_CONFIRM": "1"})
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(json.loads((self.folder / "report.json").read_text())["workers"], 4)

    def test_another_number_of_workers_is_an_error(self):
        for command in (TRAIN, ["perf", "put"]):
            code, _, error = self.run_to_end(2, SLIP, *command, "--workers", "4")
            self.assertNotEqual(code, 0)
            self.assertIn("--workers is 4, but the launcher has started 2", error)

    def test_a_killed_rank_ends_all(self):
        run = self.start(3, SLIP, *TRAIN, "--seconds", "300")
        self.assertTrue(any("iteration" in line for line in run.stdout))
        os.kill(max(self.workers()), signal.SIGKILL)
        _, error = run.communicate(timeout=PATIENCE)
        self.assertNotEqual(run.returncode, 0)
        # It names the first end that it hears of.
        self.assertRegex(error, "signal 9|lost rank 2")
        deadline = time.monotonic() + PATIENCE
        while self.workers():
            self.assertLess(time.monotonic(), deadline, "workers are left")
            time.sleep(0.1)

    def test_a_communicator_becomes_a_world(self):
        code, out, error = self.run_to_end(4, PROGRAM)
        self.assertEqual((code, out), (0, "all is as it should be\n"), error)


if __name__ == "__main__":
    SLIP, PROGRAM = (pathlib.Path(word).resolve() for word in sys.argv[1:3])
    if not shutil.which("mpirun"):
        print("mpi: Skipped\nmpirun not installed (package openmpi-bin)\n[  SKIPPED ]")
        sys.exit(SKIPPED)
    unittest.main(argv=sys.argv[:1] + sys.argv[3:], verbosity=2)
