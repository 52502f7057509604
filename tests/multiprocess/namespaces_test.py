#!/usr/bin/env python3
"""`slip train` between hosts that are network namespaces with slow links. Usage: FILE SLIP"""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

SLIP = pathlib.Path("slip")
SKIPPED = 77
PATIENCE = 120  # seconds; who is not done then hangs
PORT = 4701


def run(*command):
    subprocess.run(command, check=True, capture_output=True, text=True)


class Hosts:
    """Namespaces joined by a switch. Each sends at most so much."""

    def __init__(self, count, rate="300mbit"):
        self.names = [f"slip{os.getpid()}h{i}" for i in range(count)]
        self.switch = f"slip{os.getpid()}s"
        try:
            self.make(rate)
        except BaseException:
            self.close()
            raise

    def make(self, rate):
        for name in [self.switch, *self.names]:
            run("ip", "netns", "add", name)
        run("ip", "-n", self.switch, "link", "add", "switch", "type", "bridge")
        run("ip", "-n", self.switch, "link", "set", "switch", "up")
        for i, name in enumerate(self.names):
            run("ip", "-n", name, "link", "add", "net0", "type", "veth", "peer", "name", f"port{i}",
                "netns", self.switch)
            run("ip", "-n", self.switch, "link", "set", f"port{i}", "master", "switch", "up")
            run("ip", "-n", name, "address", "add", f"{self.address(i)}/24", "dev", "net0")
            run("ip", "-n", name, "link", "set", "net0", "up")
            run("ip", "-n", name, "link", "set", "lo", "up")
            run("tc", "-n", name, "qdisc", "add", "dev", "net0", "root", "tbf", "rate", rate,
                "burst", "64kb", "latency", "200ms")

    @staticmethod
    def address(i):
        return f"10.93.0.{i + 1}"

    def cut(self, i):
        run("ip", "-n", self.switch, "link", "set", f"port{i}", "down")

    def close(self):
        for name in [*self.names, self.switch]:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


class Run:
    """Workers, one after the other over the hosts: rank r of n on host r * hosts / n."""

    def __init__(self, stack, hosts, workers, arguments, own_processes=False):
        self.folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        self.report = self.folder / "report.json"
        self.processes = []
        stack.callback(self.end)
        count = len(hosts.names)
        for i, name in enumerate(hosts.names):
            commands = []
            for rank in range(i * workers // count, (i + 1) * workers // count):
                options = ["--rendezvous", f"{hosts.address(0)}:{PORT}", "--rank", str(rank),
                           "--workers", str(workers), "--bind", "none", *arguments]
                if rank == 0:
                    options += ["--report", str(self.report)]
                commands.append([str(SLIP), "train", *options])
            if own_processes:  # another process-id namespace is another host to us
                script = "\n".join(" ".join(c) + " &" for c in commands)
                script += "\nfailed=0; for job in $(jobs -p); do wait $job || failed=1; done"
                script += "\nexit $failed"
                commands = [["unshare", "--pid", "--fork", "--mount-proc", "--kill-child",
                             "bash", "-c", script]]
            self.processes += [self.start(name, command) for command in commands]

    @staticmethod
    def start(name, command):
        environment = dict(os.environ, SLIP_SECRET="of these tests", UCX_TLS="tcp",
                           UCX_NET_DEVICES="net0", SLIP_CHECKSUMS="1")
        return subprocess.Popen(["ip", "netns", "exec", name, *command], env=environment,
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, text=True)

    def wait(self):
        """[(exit code, output)] in the order of the processes."""
        ends = []
        for process in self.processes:
            output, _ = process.communicate(timeout=PATIENCE)
            ends.append((process.returncode, output))
        return ends

    def end(self):
        for process in self.processes:
            process.kill()
            process.wait()
            process.stdout.close()


DIGITS = ["--task", "digits", "--model", "softmax", "--evaluate-every", "20", "--iterations", "600",
          "--target", "accuracy=0.85"]


class Namespaces(unittest.TestCase):
    def setUp(self):
        self.stack = contextlib.ExitStack()
        self.addCleanup(self.stack.close)

    def hosts(self, count, rate="300mbit"):
        hosts = Hosts(count, rate)
        self.stack.callback(hosts.close)
        return hosts

    def learns(self, run, transport):
        for code, output in run.wait():
            self.assertEqual(code, 0, output)
        report = json.loads(run.report.read_text())
        self.assertEqual(report["transport"], transport)
        self.assertIsNotNone(report["target"]["reached_at_seconds"], report["final"])
        updates = report["updates"]
        self.assertEqual(updates["sent"], updates["used"] + updates["late"])

    def test_two_and_three_hosts_learn_over_ucx(self):
        for count in (2, 3):
            for protocol in ("hop", "all_reduce"):
                with self.subTest(hosts=count, protocol=protocol):
                    run = Run(self.stack, self.hosts(count), count,
                              [*DIGITS, "--transport", "ucx", "--protocol", protocol])
                    self.learns(run, "ucx")
                    self.stack.close()

    def test_auto_takes_shared_memory_within_a_host_and_ucx_between_hosts(self):
        run = Run(self.stack, self.hosts(2), 4, [*DIGITS, "--protocol", "hop"], own_processes=True)
        self.learns(run, "shm+ucx")

    def test_all_reduces_are_bound_by_bandwidth(self):
        count, bits = 4_000_000, 200_000_000
        for hosts, workers in ((2, 2), (3, 3), (2, 4)):
            with self.subTest(hosts=hosts, workers=workers):
                run = Run(self.stack, self.hosts(hosts, f"{bits}bit"), workers,
                          ["--task", f"consensus:dim={count}", "--protocol", "all_reduce",
                           "--iterations", "5", "--evaluate-every", "0"], own_processes=True)
                for code, output in run.wait():
                    self.assertEqual(code, 0, output)
                seconds = json.loads(run.report.read_text())["seconds_per_iteration"]
                bound = 2 * (hosts - 1) / hosts * 4 * count * 8 / bits
                print(f"all-reduce of {count} floats by {workers} workers on {hosts} hosts: "
                      f"{seconds / bound:.3f} times the bandwidth bound")
                self.assertGreater(seconds, 0.9 * bound)  # no link was passed by
                self.stack.close()

    def test_a_host_that_is_cut_off_is_lost_to_the_others(self):
        hosts = self.hosts(2)
        run = Run(self.stack, hosts, 2,
                  ["--task", "targets", "--transport", "ucx", "--compute", "10ms",
                   "--iterations", "2000"])
        self.assertTrue(any("iteration" in line for line in run.processes[0].stdout))
        hosts.cut(1)
        for rank, (code, output) in enumerate(run.wait()):
            self.assertEqual(code, 1, output)
            self.assertIn(f"lost rank {1 - rank}", output)


def permitted():
    try:
        Hosts(1).close()
        run("unshare", "--pid", "--fork", "--mount-proc", "true")
    except FileNotFoundError as error:
        return f"{error.filename} is not installed (packages iproute2, util-linux)"
    except subprocess.CalledProcessError as error:
        return f"no namespaces here: {error.stderr.strip()}"
    return None


if __name__ == "__main__":
    SLIP = pathlib.Path(sys.argv.pop(1)).resolve()
    if reason := permitted():
        print(f"namespaces: Skipped\n{reason}\n[  SKIPPED ]")
        sys.exit(SKIPPED)
    unittest.main()
