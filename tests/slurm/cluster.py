"""A Slurm cluster of two nodes on one host: munged, slurmctld and two slurmd in a folder of their own."""

import os
import pathlib
import shutil
import socket
import subprocess
import tempfile
import time

PROGRAMS = ["munged", "mungekey", "slurmctld", "slurmd", "srun", "sbatch", "scancel", "setpriv"]
PATIENCE = 60  # seconds until a cluster that does not come up is a failure


def unavailable():
    """Why there can be no cluster here; empty: there can."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    missing = [name for name in PROGRAMS if not shutil.which(name, path=path)]
    if missing:
        return f"{', '.join(missing)} not installed (packages slurm-wlm, munge)"
    return "" if os.geteuid() == 0 else "slurmd needs root"


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Cluster:
    """Up until `close`. `environment` is what Slurm's commands need to find it."""

    def __init__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="slurm", dir="/tmp"))
        self.folder.chmod(0o711)
        self.daemons = []
        path = os.environ["PATH"] + ":/usr/sbin:/sbin"
        self.environment = {**os.environ, "PATH": path,
                            "SLURM_CONF": str(self.folder / "slurm.conf")}
        try:
            self.start()
        except BaseException:
            self.close()
            raise

    def start(self):
        munge = self.folder / "munge"
        munge.mkdir()
        key = munge / "key"
        self.command("mungekey", "--create", f"--keyfile={key}")
        self.command("chown", "-R", "munge:munge", str(munge))
        self.daemon("setpriv", "--reuid=munge", "--regid=munge", "--clear-groups", "munged",
                    "--foreground", f"--key-file={key}", f"--socket={munge / 'socket'}",
                    *[f"--{name}-file={munge / name}" for name in ("log", "pid", "seed")])
        self.until("munged", lambda: (munge / "socket").exists())
        host = socket.gethostname().split(".")[0]
        nodes = {host: "fast", f"{host}-slow": "slow"}
        for name in ("control", *nodes):
            (self.folder / name).mkdir()
        lines = "\n".join(
            f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={free_port()} CPUs=8 "
            f"Feature={feature} State=UNKNOWN" for name, feature in nodes.items())
        (self.folder / "slurm.conf").write_text(f"""
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={free_port()}
AuthInfo=socket={munge / "socket"}
SlurmUser=root
SlurmdUser=root
MailProg=/bin/true
StateSaveLocation={self.folder / "control"}
SlurmdSpoolDir={self.folder}/%n
TmpFS={self.folder}/%n
SlurmctldPidFile={self.folder / "control.pid"}
SlurmdPidFile={self.folder}/%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
KillWait=5
SlurmdParameters=config_overrides
ReturnToService=2
SchedulerParameters=bf_interval=1
{lines}
PartitionName=main Nodes=ALL Default=YES OverSubscribe=FORCE:8
""")
        self.daemon("slurmctld", "-D")
        for name in nodes:
            self.daemon("slurmd", "-D", "-N", name)
        self.until("slurmd", lambda: "idle 2" in self.output("sinfo", "--noheader", "-o", "%t %D"))

    def command(self, *words):
        subprocess.run(words, check=True, capture_output=True, env=self.environment)

    def output(self, *words):
        """What it prints; of a command that fails, as one does that has to wait too long, nothing
        that could be taken for it."""
        done = subprocess.run(words, check=False, capture_output=True, text=True,
                              env=self.environment)
        return done.stdout if done.returncode == 0 else "failed"

    def daemon(self, *words):
        with open(self.folder / f"{len(self.daemons)}.log", "wb") as log:
            self.daemons.append(subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment,
                start_new_session=True))

    def until(self, what, condition):
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > deadline:
                logs = [log.read_text(errors="replace")[-2000:]
                        for log in self.folder.glob("*.log")]
                raise RuntimeError(f"{what} did not come up:\n" + "\n".join(logs))
            time.sleep(0.1)

    def close(self):
        for daemon in reversed(self.daemons):
            daemon.terminate()
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        shutil.rmtree(self.folder, ignore_errors=True)
