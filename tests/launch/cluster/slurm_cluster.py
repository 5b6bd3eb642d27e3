"""A real SLURM of two nodes on this machine, without root's rights or installation.

Its programs are looked for in PATH and below the folder ATTUNET_SLURM, where Debian's
packages may be unpacked without installing them:

    apt-get download slurmctld slurmd slurm-client slurm-wlm-basic-plugins \
        munge libmunge2 libhwloc15
    for package in *.deb; do dpkg -x $package FOLDER; done
"""

import getpass
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "slurmstepd", "sbatch", "scontrol", "scancel")


def find_programs() -> dict[str, str] | None:
    """Name -> path of every program; None where one is missing."""
    folder = os.environ.get("ATTUNET_SLURM")
    places = [Path(p) for p in os.environ.get("PATH", "").split(":")]
    places += [Path("/usr/sbin")]
    if folder:
        places = [Path(folder) / "usr" / name for name in ("bin", "sbin")]
    found = {}
    for program in (*PROGRAMS, "srun", "squeue"):
        for place in places:
            for name in (program, f"{program}-wlm"):
                if (place / name).is_file():
                    found.setdefault(program, str(place / name))
    return found if len(found) == len(PROGRAMS) + 2 else None


class Slurm:
    """A controller and two nodes, from `start` to `stop`."""

    def __init__(self, folder: Path, programs: dict[str, str]) -> None:
        self.folder, self.programs = folder, programs
        self._daemons: list[subprocess.Popen] = []
        commands = folder / "bin"  # sbatch, srun, ... by their plain names
        commands.mkdir()
        for name, path in programs.items():
            (commands / name).symlink_to(path)
        self.environment = os.environ | {
            "SLURM_CONF": str(folder / "slurm.conf"),
            "PATH": f"{commands}:{os.environ['PATH']}",
        }
        root = Path(programs["sbatch"]).resolve().parents[1]
        (self._plugins,) = root.glob("lib/*/slurm-wlm")
        libraries = f"{self._plugins.parent}:{self._plugins}"
        self.environment["LD_LIBRARY_PATH"] = libraries

    def start(self) -> None:
        ports = _free_ports(3)
        user = getpass.getuser()
        lines = f"""
ClusterName=here
SlurmctldHost={socket.gethostname()}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
CredType=cred/none
PluginDir={self._plugins}
StateSaveLocation={self.folder}/state
SlurmdSpoolDir={self.folder}/spool_%n
SlurmctldPidFile={self.folder}/slurmctld.pid
SlurmdPidFile={self.folder}/slurmd_%n.pid
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/linear
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
AccountingStorageType=accounting_storage/none
SlurmdParameters=config_overrides
ReturnToService=2
NodeName=127.0.0.1 NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1
NodeName=127.0.0.2 NodeHostname=localhost NodeAddr=127.0.0.2 Port={ports[2]} CPUs=1
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
        (self.folder / "slurm.conf").write_text(lines)
        (self.folder / "state").mkdir()
        self._daemon("slurmctld", "-D")
        for node in ("127.0.0.1", "127.0.0.2"):
            (self.folder / f"spool_{node}").mkdir()
            self._daemon("slurmd", "-D", "-N", node, "-d", self.programs["slurmstepd"])
        self.wait(lambda: self.ask("squeue", "--noheader") == "", 60)
        nodes = ("scontrol", "--oneliner", "show", "nodes")
        self.wait(lambda: self.ask(*nodes).count("State=IDLE") == 2, 60)

    def ask(self, program: str, *words: str) -> str:
        """What a command of SLURM prints."""
        done = subprocess.run(
            [self.programs[program], *words],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return (done.stdout if done.returncode == 0 else done.stderr).strip()

    def job(self, number: str) -> dict[str, str]:
        """Fields of `scontrol show job`."""
        words = self.ask("scontrol", "--oneliner", "show", "job", number).split()
        parts = (word.partition("=") for word in words)
        return {name: value for name, equals, value in parts if equals}

    def wait(self, done, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < end, self.logs()
            assert all(d.poll() is None for d in self._daemons), self.logs()
            time.sleep(0.2)

    def logs(self) -> str:
        return "\n".join(
            f"== {path.name}\n{path.read_text(errors='replace')[-3000:]}"
            for path in sorted(self.folder.glob("*.log"))
        )

    def stop(self) -> None:
        for daemon in reversed(self._daemons):
            daemon.terminate()
        for daemon in self._daemons:
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()
        shutil.rmtree(self.folder / "state", ignore_errors=True)

    def _daemon(self, program: str, *words: str) -> None:
        with (self.folder / f"{program}_{len(self._daemons)}.log").open("w") as log:
            self._daemons.append(
                subprocess.Popen(
                    [self.programs[program], *words],
                    env=self.environment,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            )


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
