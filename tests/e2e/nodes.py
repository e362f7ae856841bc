"""How are several machines made of one, each with a network of its own, of which any can be cut off or killed?

Network namespaces on one bridge, with a raylet in each; root and iproute2 are needed. A machine has its own folder
/tmp/headrace-UID, Ray's in it, by a mount namespace, and a core of its own.
"""

import ctypes
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cluster.processes import Process, command_line, identify

RAY = (sys.executable, "-c", "from ray.scripts.scripts import main; main()")
START = (*RAY, "start", "--block")
GCS_PORT, DASHBOARD_PORT = 6379, 8265
NET = "10.213.7"
"""Of which the machines have addresses: nothing but them is reached there."""
HUB = f"{NET}.200"
"""Where the test itself is among them."""
PATIENCE_S = 120.0
HEADLESS_S = 600
"""For so long a raylet waits for a head that is gone; Ray's own 60 s would end it, and all that it carries."""
DROPS = "4,32 0 0 4294963256,37 1 0 {below},6 0 0 65538,6 0 0 0"
"""Classic BPF: a random number that is not above `below` takes a packet to class 1:2."""
CLONE_NEWNET = 0x40000000


def why_not() -> str | None:
    """Why this machine can't do that; None where it can."""
    if os.geteuid() != 0:
        return "making network namespaces needs root"
    missing = [name for name in ("ip", "tc", "unshare", "mount", "taskset") if shutil.which(name) is None]
    if missing:
        return f"{', '.join(missing)} (iproute2, util-linux) is not installed"
    probe = f"hr{secrets.token_hex(2)}"
    if subprocess.run(["ip", "netns", "add", probe], capture_output=True, check=False).returncode:
        return "network namespaces are not allowed here"
    subprocess.run(["ip", "netns", "del", probe], check=True)
    return None


@dataclass
class Machine:
    """One of them. Its processes are those of its network namespace."""

    namespace: str
    address: str
    cable: str
    """The bridge's end of its cable."""
    hub: str
    process: subprocess.Popen[bytes] | None = None

    def start(self, command: list[str], *, folder: Path, core: int, env: dict[str, str]) -> None:
        """Runs a command there, and leaves it running. Its /tmp/headrace-UID is `folder`, empty as a new machine's."""
        own = f"/tmp/headrace-{os.getuid()}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        Path(own).mkdir(mode=0o700, exist_ok=True)
        inside = f'mount --bind {folder} {own} && exec taskset --cpu-list {core} "$@"'
        with (folder.parent / f"{self.namespace}.log").open("ab") as log:
            self.process = subprocess.Popen(
                ["ip", "netns", "exec", self.namespace, "unshare", "-m", "sh", "-c", inside, "sh", *command],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def cut(self) -> None:
        """Pulls the cable: nothing passes, and nobody is told."""
        _ip("-n", self.hub, "link", "set", self.cable, "down")

    def plug(self) -> None:
        """Puts the cable back."""
        _ip("-n", self.hub, "link", "set", self.cable, "up")

    def spoil(self, *, lost: float, mbit_s: float) -> None:
        """Of what comes to it by its cable a share is lost, and the rest is slow. Kernels without netem can do that."""
        for words in (
            "qdisc add dev {} root handle 1: htb default 1",
            f"class add dev {{}} parent 1: classid 1:1 htb rate {mbit_s}mbit quantum 2000",
            f"class add dev {{}} parent 1: classid 1:2 htb rate {mbit_s}mbit quantum 2000",
            "qdisc add dev {} parent 1:2 handle 2: pfifo limit 0",
        ):
            _tc(self.hub, *words.format(self.cable).split())
        code = DROPS.format(below=int(lost * 2**32))
        _tc(self.hub, *f"filter add dev {self.cable} parent 1: bpf bytecode".split(), code)

    def mend(self) -> None:
        """Its cable is as good as new."""
        _tc(self.hub, "qdisc", "del", "dev", self.cable, "root")

    def lost_packets(self) -> int:
        """On its spoilt cable."""
        told = subprocess.run(
            ["tc", "-n", self.hub, "-s", "-j", "qdisc", "show", "dev", self.cable],
            capture_output=True,
            text=True,
            check=True,
        )
        return sum(one["drops"] for one in json.loads(told.stdout) if one["kind"] == "pfifo")

    def kill(self) -> None:
        """Pulls the cable and takes the power: no word of it reaches others."""
        self.cut()
        self.end()

    def end(self) -> None:
        """Kills whatever runs there."""
        end_s = time.monotonic() + PATIENCE_S
        while pids := self.pids():
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            assert time.monotonic() < end_s, pids
            time.sleep(0.05)
        if self.process is not None:
            self.process.wait()

    def carries_ray(self) -> bool:
        """Whether its raylet runs. `ray start --block` goes on without one that has ended well."""
        return any(command_line(one).split(" ")[0].endswith("/raylet") for one in self._processes())

    def pids(self) -> list[int]:
        """Of all its live processes."""
        return [one.pid for one in self._processes()]

    def _processes(self) -> list[Process]:
        listed = subprocess.run(["ip", "netns", "pids", self.namespace], capture_output=True, text=True, check=True)
        return [one for pid in listed.stdout.split() if (one := identify(int(pid))) is not None]


@dataclass
class Machines:
    """All of them, on a bridge in a namespace of its own, where the calling thread is meanwhile."""

    folder: Path
    hub: str = field(default_factory=lambda: f"hr{secrets.token_hex(2)}")
    by_name: dict[str, Machine] = field(default_factory=dict)

    def add(self, name: str) -> Machine:
        """One more, with nothing running."""
        number = len(self.by_name) + 1
        namespace, cable = f"{self.hub}-{name}", f"{self.hub}-{number}"
        _ip("netns", "add", namespace)
        machine = Machine(namespace=namespace, address=f"{NET}.{number}", cable=cable, hub=self.hub)
        self.by_name[name] = machine
        _ip("-n", self.hub, "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", namespace)
        _ip("-n", self.hub, "link", "set", cable, "master", "bridge", "up")
        _ip("-n", namespace, "address", "add", f"{machine.address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            _ip("-n", namespace, "link", "set", device, "up")
        return machine

    def close(self) -> None:
        """Ends them all; nothing stays, even when one of them won't end."""
        with ExitStack() as ending:
            ending.callback(_ip, "netns", "del", self.hub)
            for machine in self.by_name.values():
                ending.callback(_ip, "netns", "del", machine.namespace)
                ending.callback(machine.end)


@contextmanager
def machines(folder: Path) -> Iterator[Machines]:
    """A bridge without machines yet. This thread, and what it starts, is in its network meanwhile."""
    made = Machines(folder)
    _ip("netns", "add", made.hub)
    try:
        _ip("-n", made.hub, "link", "add", "bridge", "type", "bridge")
        _ip("-n", made.hub, "address", "add", f"{HUB}/24", "dev", "bridge")
        for device in ("lo", "bridge"):
            _ip("-n", made.hub, "link", "set", device, "up")
        with _inside(made.hub):
            yield made
    finally:
        made.close()


@contextmanager
def _inside(namespace: str) -> Iterator[None]:
    libc = ctypes.CDLL(None, use_errno=True)

    def enter(path: str) -> None:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            if libc.setns(descriptor, CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), f"setns {path}")
        finally:
            os.close(descriptor)

    with open("/proc/self/ns/net") as home:
        enter(f"/run/netns/{namespace}")
        try:
            yield
        finally:
            enter(f"/proc/self/fd/{home.fileno()}")


def ray_head(machine: Machine, *, folder: Path, core: int, env: dict[str, str]) -> None:
    """Ray's head there, which runs no replicas and keeps its tables in a file."""
    command = [
        *START,
        "--head",
        f"--port={GCS_PORT}",
        f"--dashboard-host={machine.address}",
        f"--dashboard-port={DASHBOARD_PORT}",
        *_node(machine, cpus=0),
    ]
    tables = folder / "gcs"
    tables.mkdir(parents=True, exist_ok=True)
    kept = {"RAY_gcs_storage": "rocksdb", "RAY_gcs_storage_path": str(tables)}
    machine.start(command, folder=folder / "own", core=core, env=env | kept)


def ray_node(machine: Machine, head: Machine, *, folder: Path, core: int, cpus: int, env: dict[str, str]) -> None:
    """A raylet that joins."""
    command = [*START, f"--address={head.address}:{GCS_PORT}", *_node(machine, cpus=cpus)]
    waits = {"RAY_gcs_rpc_server_reconnect_timeout_s": str(HEADLESS_S)}
    machine.start(command, folder=folder / "own", core=core, env=env | waits)


def drain(head: Machine, node_id: str, *, notice_s: int, env: dict[str, str]) -> None:
    """Tells Ray that a node will be taken away so soon. Raises CalledProcessError when it won't hear of it."""
    words = ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "it is needed elsewhere"]
    words += ["--node-id", node_id, "--deadline-remaining-seconds", str(notice_s)]
    command = [*RAY, "drain-node", "--address", f"{head.address}:{GCS_PORT}", *words]
    subprocess.run(command, env=env, check=True, capture_output=True, text=True)


def _node(machine: Machine, *, cpus: int) -> list[str]:
    return [
        f"--node-ip-address={machine.address}",
        f"--num-cpus={cpus}",
        "--num-gpus=0",
        "--object-store-memory=80000000",
        "--disable-usage-stats",
        "--include-log-monitor=false",
        "--log-color=false",
        f"--temp-dir=/tmp/headrace-{os.getuid()}/ray",
    ]


def until(happened: Callable[[], bool], what: str, limit_s: float = PATIENCE_S) -> float:
    """Waits for it; seconds that it took. Raises AssertionError."""
    began_s = time.monotonic()
    while not happened():
        assert time.monotonic() < began_s + limit_s, f"{what} took longer than {limit_s:g} s"
        time.sleep(0.2)
    return time.monotonic() - began_s


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def _tc(namespace: str, *words: str) -> None:
    subprocess.run(["tc", "-n", namespace, *words], check=True)
