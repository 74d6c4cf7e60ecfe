"""A SLURM of two nodes on this machine with fake H100s, for tests: real sbatch, no systemd, cgroups or accounting.

`python tests/slurm/cluster.py start DIR` and `... stop DIR` do by hand what the tests' fixture does.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

PACKAGES = ("slurmctld", "slurmd", "slurm-client", "slurm-wlm-basic-plugins", "munge")
SYSTEM = Path("/etc/slurm")
NODES = ("n1", "n2")

# The nodes claim more than the machine has, so that the shipped profile's real requests are scheduled.
SLURM_CONF = """\
ClusterName=braing3n
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge/munge.sock,cred_expire=10
SlurmctldPort=26817
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd-%n.log
MpiDefault=none
SwitchType=switch/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
ReturnToService=2
KillWait=30
SlurmctldTimeout=30
SlurmdTimeout=20
MinJobAge=3600
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,sched_min_interval=1000,bf_interval=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
GresTypes=gpu
SlurmdParameters=config_overrides
NodeName=n[1-2] NodeHostname={host} NodeAddr=127.0.0.1 Port=[26821-26822] CPUs=32 Boards=1 SocketsPerBoard=1 \
CoresPerSocket=32 ThreadsPerCore=1 RealMemory=256000 Gres=gpu:h100:4 State=UNKNOWN
PartitionName=cpu Nodes=ALL Default=YES MaxTime=INFINITE State=UP
PartitionName=gpu Nodes=ALL Default=NO MaxTime=INFINITE State=UP
"""

# slurmd insists on device files: these are twins of /dev/null that nothing opens.
GRES_CONF = """\
AutoDetect=off
Name=gpu Type=h100 File={folder}/dev/gpu[0-3] Flags=nvidia_gpu_env
"""


def unavailable() -> str | None:
    """Why no cluster can be started here, or None; installs SLURM where it is missing."""
    if os.geteuid() != 0:
        return "starting SLURM needs root"
    link = SYSTEM / "slurm.conf"
    if link.exists() and not link.is_symlink():
        return f"{link} belongs to this machine's own cluster"
    if shutil.which("slurmctld") and shutil.which("munged"):
        return None
    if shutil.which("apt-get") is None:
        return "SLURM is not installed and there is no apt-get"
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    quick = ["-qq", "-o", "Acquire::Retries=1", "-o", "Acquire::http::Timeout=20"]
    for command in (["update"], ["install", "-y", "--no-install-recommends", *PACKAGES]):
        try:
            result = subprocess.run(
                ["apt-get", *quick, *command], env=environment, capture_output=True, text=True, timeout=300, check=False
            )
        except subprocess.TimeoutExpired:
            return "apt-get did not install SLURM within five minutes"
    last = (result.stderr.strip().splitlines() or ["no message"])[-1]
    return f"apt-get could not install SLURM: {last}" if result.returncode else None


class Cluster:
    """Starts and stops the daemons; everything it writes lies under `folder` but two links in /etc/slurm."""

    def __init__(self, folder: str | Path):
        # slurmstepd changes directory and then cannot find a relative configuration.
        self.folder = Path(folder).resolve()

    def start(self) -> None:
        for name in ("state", "log", "munge", "dev", "spool"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o755)
        (self.folder / "munge").chmod(0o711)
        for number in range(4):
            device = self.folder / "dev" / f"gpu{number}"
            if not device.exists():
                os.mknod(device, 0o666 | 0o020000, os.makedev(1, 3))
        SYSTEM.mkdir(exist_ok=True)
        for name, content in (("slurm.conf", SLURM_CONF), ("gres.conf", GRES_CONF)):
            path = self.folder / name
            path.write_text(content.format(folder=self.folder, host=socket.gethostname().split(".")[0]))
            # The executor plugin drops SLURM_CONF before its inner srun, so the clients must find it at its place.
            link = SYSTEM / name
            link.unlink(missing_ok=True)
            link.symlink_to(path)
        self._start_munge()
        subprocess.run(["slurmctld", "-f", self.folder / "slurm.conf"], check=True)
        for node in NODES:
            self.start_node(node)
        self.wait_for("idle,mixed,allocated")

    def _start_munge(self) -> None:
        folder = self.folder / "munge"
        key = folder / "munge.key"
        if not key.exists():
            key.touch(mode=0o600)
            key.write_bytes(secrets.token_bytes(1024))
        subprocess.run(
            [
                "munged",
                "--force",
                f"--key-file={key}",
                f"--socket={folder}/munge.sock",
                f"--pid-file={folder}/munged.pid",
                f"--seed-file={folder}/munged.seed",
                f"--log-file={self.folder}/log/munged.log",
            ],
            check=True,
            stderr=subprocess.DEVNULL,
        )

    def start_node(self, node: str) -> None:
        subprocess.run(["slurmd", "-f", self.folder / "slurm.conf", "-N", node], check=True)

    def kill_node(self, node: str) -> None:
        """SIGKILL to the node's daemon and to all jobs, as when it loses power; waits until SLURM has seen it."""
        os.kill(self._pid(f"slurmd-{node}.pid"), signal.SIGKILL)
        for pid in self.job_processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.wait_for("down", node)

    def wait_for(self, states: str, *nodes: str, seconds: float = 90) -> None:
        """Wait until these nodes, by default all, are in one of these states (as of `sinfo --states`)."""
        nodes = nodes or NODES
        limit = time.monotonic() + seconds
        while time.monotonic() < limit:
            if len(
                self.query("sinfo", "-h", "-N", "-p", "gpu", "-t", states, "-n", ",".join(nodes)).splitlines()
            ) == len(nodes):
                return
            time.sleep(0.5)
        logs = "\n".join(path.read_text()[-2000:] for path in sorted((self.folder / "log").glob("*.log")))
        raise RuntimeError(f"{', '.join(nodes)}: not {states} in {seconds:.0f} s\n{logs}")

    def query(self, *command: str) -> str:
        """Output of a client command; a dead controller makes clients hang, hence the limit."""
        try:
            return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False).stdout
        except subprocess.TimeoutExpired:
            return ""

    def stop(self) -> None:
        """Cancel all jobs, stop the daemons, and kill what outlives them."""
        self.query("scancel", "--full", "--user=root")
        limit = time.monotonic() + 40
        while self.query("squeue", "-h") and time.monotonic() < limit:
            time.sleep(0.5)
        for name in (*(f"slurmd-{node}.pid" for node in NODES), "slurmctld.pid", "munge/munged.pid"):
            with suppress(FileNotFoundError, ProcessLookupError, ValueError):
                pid = self._pid(name)
                os.kill(pid, signal.SIGTERM)
                _wait_gone(pid)
        for pid in self.job_processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for name in ("slurm.conf", "gres.conf"):
            link = SYSTEM / name
            if link.is_symlink() and link.readlink() == self.folder / name:
                link.unlink()

    def job_processes(self) -> list[int]:
        """Step daemons and processes of jobs: those that this cluster's SLURM gave its configuration."""
        return _processes(f"SLURM_CONF={self.folder}/slurm.conf", "environ")

    def leftovers(self) -> list[int]:
        """Processes of this cluster that are still there."""
        return [*self.job_processes(), *_processes(str(self.folder), "cmdline")]

    def _pid(self, name: str) -> int:
        return int((self.folder / name).read_text())


def _processes(text: str, file: str) -> list[int]:
    """Other processes whose command line or environment holds `text`."""
    found = []
    for path in Path("/proc").glob(f"[0-9]*/{file}"):
        with suppress(OSError):  # it has just ended
            if text.encode() in path.read_bytes() and int(path.parent.name) != os.getpid():
                found.append(int(path.parent.name))
    return found


def _wait_gone(pid: int, seconds: float = 10) -> None:
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.2)
    os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    if reason := unavailable():
        raise SystemExit(reason)
    getattr(Cluster(sys.argv[2]), {"start": "start", "stop": "stop"}[sys.argv[1]])()
