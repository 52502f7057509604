#!/usr/bin/env python3
"""`slip` under a real Slurm. Usage: FILE SLIP EXAMPLES"""

import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import unittest

import cluster

SLIP = pathlib.Path("slip")
EXAMPLES = pathlib.Path("examples")
SKIPPED = 77
PATIENCE = 120  # seconds; what is not done then hangs
TRAIN = ["train", "--task", "digits", "--bind", "none"]
CLUSTER = None


def setUpModule():
    global CLUSTER
    CLUSTER = cluster.Cluster()


def tearDownModule():
    CLUSTER.close()


def start(folder, *words, **variables):
    return subprocess.Popen(
        [str(word) for word in words], cwd=folder, env={**CLUSTER.environment, **variables},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def result_of(process):
    out, error = process.communicate(timeout=PATIENCE)
    return process.returncode, out, error


def shared_memory():
    """But OpenMPI's and UCX's, whose programs other tests run meanwhile."""
    return {name for name in os.listdir("/dev/shm")
            if not name.startswith(("vader_segment", "ucx_"))}


def workers_in(folder):
    """Processes of `slip` whose current folder this is."""
    found = []
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if (process / "comm").read_text().strip() == "slip" and \
                    pathlib.Path(os.readlink(process / "cwd")) == folder:
                found.append(int(process.name))
        except OSError:
            pass  # it has ended
    return found


def rank_of(pid):
    variables = pathlib.Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return int(dict(v.split(b"=", 1) for v in variables if b"=" in v)[b"SLURM_PROCID"])


class Slurm(unittest.TestCase):
    def setUp(self):
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.folder = pathlib.Path(holder.name).resolve()
        self.addCleanup(lambda: self.until("workers ended", lambda: not workers_in(self.folder)))
        self.until("the node is free", lambda: CLUSTER.output("squeue", "--noheader") == "")

    def until(self, what, condition):
        deadline = time.monotonic() + PATIENCE
        while not condition():
            self.assertLess(time.monotonic(), deadline, f"in vain: {what}")
            time.sleep(0.1)

    def srun(self, tasks, *words, mpi="pmix", **variables):
        # Quiet, or it may say that the job waits for a busy controller.
        return start(self.folder, "srun", "--quiet", f"--mpi={mpi}", "-n", tasks, SLIP, *words,
                     **variables)

    def sbatch(self, example, *options, arguments=(), **variables):
        """The job's number."""
        path = f"{SLIP.parent}:{CLUSTER.environment['PATH']}"
        code, out, error = result_of(start(
            self.folder, "sbatch", "--parsable", *options, EXAMPLES / example, *arguments,
            PATH=path, **variables))
        self.assertEqual(code, 0, error)
        return out.strip()

    def wait_for_job(self, number):
        """How it ended."""
        state = ""

        def is_over():
            nonlocal state
            job = CLUSTER.output("scontrol", "show", "job", number, "--oneliner")
            state = job.partition("JobState=")[2].partition(" ")[0]
            return state in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")

        self.until(f"job {number} ends", is_over)
        return state

    def report(self, name="report.json"):
        return json.loads((self.folder / name).read_text())

    def test_srun_with_pmix_trains_to_the_target(self):
        code, _, error = result_of(self.srun(
            4, *TRAIN, "--target", "accuracy=0.9", "--iterations", "2000", "--report",
            "report.json"))
        self.assertEqual((code, error), (0, ""))
        report = self.report()
        self.assertEqual(report["workers"], 4)
        self.assertIsNotNone(report["target"]["reached_at_seconds"])

    def test_a_launcher_of_another_size_is_an_error(self):
        code, _, error = result_of(self.srun(2, *TRAIN, "--workers", "3"))
        self.assertNotEqual(code, 0)
        self.assertIn("--workers is 3, but the launcher has started 2", error)

    def test_srun_without_pmix_says_what_to_do(self):
        code, _, error = result_of(self.srun(2, *TRAIN, mpi="none"))
        self.assertNotEqual(code, 0)
        self.assertIn("srun has started 2 tasks that do not know how to meet; give it --mpi=pmix",
                      error)

    def test_srun_without_pmix_meets_at_a_rendezvous(self):
        where = f"127.0.0.1:{cluster.free_port()}"
        code, _, error = result_of(self.srun(
            3, *TRAIN, "--iterations", "50", "--report", "report.json", mpi="none",
            SLIP_RENDEZVOUS=where, SLIP_SECRET="of this job"))
        self.assertEqual((code, error), (0, ""))
        self.assertEqual(self.report()["workers"], 3)

    def kill_rank_2(self, **srun):
        """The end of a run of three workers of which one is killed amid the training."""
        run = self.srun(3, *TRAIN, "--seconds", "300", **srun)
        self.assertTrue(any("iteration" in line for line in run.stdout))
        victim = next(pid for pid in workers_in(self.folder) if rank_of(pid) == 2)
        os.kill(victim, signal.SIGKILL)
        return result_of(run)

    def test_a_killed_rank_ends_the_job_and_slurm_names_it(self):
        # Slurm's PMIx kills the others before they could say anything.
        code, _, error = self.kill_rank_2()
        self.assertNotEqual(code, 0)
        self.assertRegex(error, r"tasks? ([\d,-]*[-,])?2: Killed")

    def test_without_pmix_the_others_name_the_killed_rank(self):
        code, _, error = self.kill_rank_2(mpi="none",
                                          SLIP_RENDEZVOUS=f"127.0.0.1:{cluster.free_port()}")
        self.assertNotEqual(code, 0)
        self.assertRegex(error, "lost rank 2|rank 2 .*left the rendezvous")

    def test_a_rank_that_never_shows_up_is_named_by_the_deadline(self):
        (self.folder / "tasks").write_text(
            f"0-1 {SLIP} {' '.join(TRAIN)} --iterations 10\n2 sleep 100\n")
        code, _, error = result_of(start(
            self.folder, "srun", "--mpi=pmix", "-n", "3", "--multi-prog", "tasks"))
        self.assertNotEqual(code, 0)
        self.assertIn("rank 2 never joined", error)

    def test_sbatch_saves_before_its_time_is_over_and_resumes(self):
        # Slurm looks at the time every 30 s, and signals up to 30 s early: here not in the first 30 s,
        # in which workers start.
        options = ["--ntasks-per-node=1", "--time=2", "--signal=TERM@60", "--output=out"]
        first = self.sbatch("train.sbatch", *options, ITERATIONS="1000000000")
        self.assertEqual(self.wait_for_job(first), "COMPLETED", (self.folder / "out").read_text())
        reached = self.report(f"slipstream-{first}.json")["iterations"]
        self.assertGreater(min(reached), 0)
        self.assertTrue((self.folder / "slipstream.state").exists())
        second = self.sbatch("train.sbatch", *options, ITERATIONS=str(max(reached) + 100))
        self.assertEqual(self.wait_for_job(second), "COMPLETED", (self.folder / "out").read_text())
        self.assertEqual(self.report(f"slipstream-{second}.json")["iterations"],
                         [max(reached) + 100] * 2)

    def test_a_heterogeneous_job_is_one_world(self):
        job = self.sbatch("heterogeneous.sbatch", "--output=out",
                          arguments=["--iterations", "50", "--report", "report.json"])
        self.assertEqual(self.wait_for_job(job), "COMPLETED", (self.folder / "out").read_text())
        self.assertEqual(self.report()["workers"], 8)

    def test_a_heterogeneous_job_fails_with_its_steps(self):
        job = self.sbatch("heterogeneous.sbatch", "--output=out", arguments=["--iterations", "no"])
        self.assertEqual(self.wait_for_job(job), "FAILED")
        self.assertIn("--iterations is 'no'", (self.folder / "out").read_text())

    def test_scancel_leaves_nothing_behind(self):
        before = shared_memory()
        job = self.sbatch("train.sbatch", "--nodes=1", "--ntasks-per-node=4",
                          "--output=out", ITERATIONS="1000000000")
        self.until("four workers", lambda: len(workers_in(self.folder)) == 4)
        time.sleep(1)
        CLUSTER.command("scancel", job)
        self.wait_for_job(job)
        self.until("workers ended", lambda: not workers_in(self.folder))
        self.assertEqual(shared_memory() - before, set())

    def test_microbenchmarks_run_over_all_and_between_any_two(self):
        for test in (["all-reduce"], ["put", "--between", "3,1"]):
            code, _, error = result_of(self.srun(
                4, "perf", *test, "-b", "8", "-e", "4K", "-f", "8", "-n", "20", "-w", "5", "-J",
                "rows.json"))
            self.assertEqual((code, error), (0, ""))
            rows = self.report("rows.json")["rows"]
            self.assertEqual({row["wrong"] for row in rows}, {0})
            self.assertGreater(min(row["min"] for row in rows), 0)

    def test_microbenchmarks_run_between_the_tasks_of_a_job(self):
        for transport in ("shm", "ucx"):
            job = self.sbatch("perf.sbatch",
                              "--output=out", arguments=["-n", "20", "-w", "5", "-J", "rows.json"],
                              TRANSPORT=transport)
            self.assertEqual(self.wait_for_job(job), "COMPLETED",
                             (self.folder / "out").read_text())
            rows = self.report("rows.json")["rows"]
            self.assertGreater(len(rows), 10)
            self.assertEqual({row["wrong"] for row in rows}, {0})


if __name__ == "__main__":
    SLIP, EXAMPLES = (pathlib.Path(word).resolve() for word in sys.argv[1:3])
    if why := cluster.unavailable():
        print(f"slurm: Skipped\n{why}\n[  SKIPPED ]")
        sys.exit(SKIPPED)
    unittest.main(argv=sys.argv[:1] + sys.argv[3:], verbosity=2)
