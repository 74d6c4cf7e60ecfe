"""A one-node SLURM on this machine with fake H100s, for tests: real sbatch, no systemd, no cgroups, no accounting.

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
from pathlib import Path

PACKAGES = ("slurmctld", "slurmd", "slurm-client", "slurm-wlm-basic-plugins", "munge")
SYSTEM = Path("/etc/slurm")

# The node claims more than the machine has, so that the shipped profile's real requests are scheduled.
SLURM_CONF = """\
ClusterName=braing3n
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge/munge.sock
SlurmctldPort=26817
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.log
MpiDefault=none
SwitchType=switch/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
ReturnToService=2
KillWait=5
SlurmctldTimeout=30
SlurmdTimeout=20
MinJobAge=3600
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,sched_min_interval=1000,bf_interval=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
GresTypes=gpu
SlurmdParameters=config_overrides
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port=26821 CPUs=32 Boards=1 SocketsPerBoard=1 CoresPerSocket=32 \
ThreadsPerCore=1 RealMemory=256000 Gres=gpu:h100:4 State=UNKNOWN
PartitionName=cpu Nodes=ALL Default=YES MaxTime=INFINITE State=UP
PartitionName=gpu Nodes=ALL Default=NO MaxTime=INFINITE State=UP
"""

# slurmd insists on device files: these are twins of /dev/null that nothing opens.
GRES_CONF = """\
AutoDetect=off
Name=gpu Type=h100 File={folder}/dev/gpu[0-3] Flags=nvidia_gpu_env
"""


def available() -> str | None:
    """None when a cluster can be started here, else why not."""
    if os.geteuid() != 0:
        return "starting SLURM needs root"
    if shutil.which("slurmctld") is None and shutil.which("apt-get") is None:
        return "SLURM is not installed and there is no apt-get"
    link = SYSTEM / "slurm.conf"
    if link.exists() and not link.is_symlink():
        return f"{link} belongs to this machine's own cluster"
    return None


class Cluster:
    """Starts and stops the daemons; everything it writes lies under `folder` but two links in /etc/slurm."""

    def __init__(self, folder: str | Path):
        # slurmstepd changes directory and then cannot find a relative configuration.
        self.folder = Path(folder).resolve()

    def start(self) -> None:
        self._install()
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
        self.start_node()
        self.wait_until_up()

    def _install(self) -> None:
        if shutil.which("slurmctld") and shutil.which("munged"):
            return
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "update", "-qq"], check=True, env=environment)
        command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *PACKAGES]
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)

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

    def start_node(self) -> None:
        subprocess.run(["slurmd", "-f", self.folder / "slurm.conf", "-N", "n1"], check=True)

    def kill_node(self) -> None:
        """SIGKILL to the node daemon, as when a node dies."""
        os.kill(self._pid("slurmd.pid"), signal.SIGKILL)

    def wait_until_up(self, seconds: float = 60) -> None:
        limit = time.monotonic() + seconds
        while time.monotonic() < limit:
            if self.query("sinfo", "-h", "-p", "gpu", "-t", "idle,mixed,allocated", "-o", "%D").strip() == "1":
                return
            time.sleep(0.5)
        logs = "\n".join(path.read_text()[-2000:] for path in sorted((self.folder / "log").glob("*.log")))
        raise RuntimeError(f"SLURM did not come up in {seconds:.0f} s\n{logs}")

    def query(self, *command: str) -> str:
        """Output of a client command; a dead controller makes clients hang, hence the limit."""
        try:
            return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False).stdout
        except subprocess.TimeoutExpired:
            return ""

    def stop(self) -> None:
        self.query("scancel", "--full", "--user=root")
        for name in ("slurmd.pid", "slurmctld.pid", "munge/munged.pid"):
            try:
                pid = self._pid(name)
                os.kill(pid, signal.SIGTERM)
            except (FileNotFoundError, ProcessLookupError, ValueError):
                continue
            _wait_gone(pid)
        for name in ("slurm.conf", "gres.conf"):
            link = SYSTEM / name
            if link.is_symlink() and link.readlink() == self.folder / name:
                link.unlink()

    def _pid(self, name: str) -> int:
        return int((self.folder / name).read_text())


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
    getattr(Cluster(sys.argv[2]), {"start": "start", "stop": "stop"}[sys.argv[1]])()
