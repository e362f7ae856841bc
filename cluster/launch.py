"""How is Ray started on this machine for one run? On loopback, behind a fresh token, on ports of its own."""

import os
import random
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

from cluster.processes import MARK

PORT_RANGE = range(20000, 30000)
"""Between Ray's worker ports and Linux's for outgoing connections, so that neither takes one meanwhile."""
OBJECT_STORE_BYTES = 200 * 1000 * 1000
"""Little passes through it: requests and answers travel on the link."""
FOREIGN = (
    *("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_TOKEN", "RAY_NAMESPACE", "RAY_JOB_ID"),
    # What Ray gives a job's driver: the job's files, which only the job's own cluster has.
    "RAY_JOB_CONFIG_JSON_ENV_VAR",
)
"""Variables that would tie this Ray to another one."""

DEFAULTS = {
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_NO_USAGE_STATS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # Ray's own default of 0.1 s is missed on a busy machine.
    "RAY_SERVE_QUEUE_LENGTH_RESPONSE_DEADLINE_S": "1.0",
    # Ray's own are 0.1 s, 0.1 s and 1 s: what processes of a fleet do that nobody asks is mostly that.
    "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.3",
    "RAY_SERVE_METRICS_EXPORT_INTERVAL_MS": "5000",
    "RAY_task_events_report_interval_ms": "10000",
}
"""Of every Ray process, wherever it runs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ports:
    """Every port of a Ray head that would otherwise be the same for each Ray of a machine, or any."""

    gcs: int
    object_manager: int
    node_manager: int
    client: int
    dashboard: int
    dashboard_metrics: int
    agent: int
    agent_grpc: int
    runtime_env: int
    metrics: int


def free_ports(source: random.Random) -> Ports:
    """Ports that nobody listens on now, drawn from `source`. Raises OSError when there are too few."""
    names = tuple(field.name for field in fields(Ports))
    found = dict(zip(names, unused(source), strict=False))
    if len(found) < len(names):
        raise OSError(f"fewer than {len(names)} free ports between {PORT_RANGE.start} and {PORT_RANGE.stop}")
    return Ports(**found)


def unused(source: random.Random) -> Iterator[int]:
    """Every port of the range that nobody listens on now, in an order drawn from `source`."""
    return filter(_is_free, source.sample(PORT_RANGE, len(PORT_RANGE)))


def write_token(path: Path) -> None:
    """A fresh token that only this user can read."""
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(32))


def environment(base: dict[str, str], *, run_id: str, token: Path, ports: Ports) -> dict[str, str]:
    """The environment of Ray and of everything it starts; what the user has set for vLLM stays."""
    chosen = {name: value for name, value in base.items() if name not in FOREIGN}
    return (
        DEFAULTS
        | chosen
        | {
            MARK: run_id,
            # Else a process that renames itself overwrites the environment that /proc shows, mark included.
            "SPT_NOENV": "1",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            # The one switch that keeps every port of Ray on loopback: without it 127.0.0.1 is replaced by
            # the machine's own address, and GCS and raylet then listen on all interfaces.
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
            "DASHBOARD_METRIC_PORT": str(ports.dashboard_metrics),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_SERVE_LOG_TO_STDERR": "0",
            # Streams are finished before Ray is asked to end: it needs no further drain of its own.
            "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
            # Ray's default of 15 would let everything else on the machine go before the engines.
            "RAY_worker_niceness": "0",
            # Models are local by now; engines need nothing from outside.
            "HF_HUB_OFFLINE": "1",
        }
    )


def ray_command(ports: Ports, *, folder: Path, cpus: int, gpus: int, dashboard: bool = True) -> list[str]:
    """The command that starts a Ray head and stays until it dies. Serve's REST API is the dashboard's; without it a
    start takes ten processes less.
    """
    return [
        *(sys.executable, "-c", "from ray.scripts.scripts import main; main()", "start", "--head", "--block"),
        "--node-ip-address=127.0.0.1",
        f"--port={ports.gcs}",
        f"--object-manager-port={ports.object_manager}",
        f"--node-manager-port={ports.node_manager}",
        f"--ray-client-server-port={ports.client}",
        f"--include-dashboard={str(dashboard).lower()}",
        f"--dashboard-port={ports.dashboard}",
        f"--dashboard-agent-listen-port={ports.agent}",
        f"--dashboard-agent-grpc-port={ports.agent_grpc}",
        f"--runtime-env-agent-port={ports.runtime_env}",
        f"--metrics-export-port={ports.metrics}",
        f"--temp-dir={folder / 'ray'}",
        f"--num-cpus={cpus}",
        f"--num-gpus={gpus}",
        f"--object-store-memory={OBJECT_STORE_BYTES}",
        "--disable-usage-stats",
        "--include-log-monitor=false",
        # Nodes come and go by Ray's autoscaler elsewhere; here there is one.
        "--no-monitor",
        "--log-color=false",
    ]


def start(command: list[str], *, run_id: str, folder: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Starts Ray under its keeper (keeper.py), this process being the driver; output in `ray.log`."""
    with (folder / "ray.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "cluster.keeper", run_id, str(os.getpid()), *command],
            env=environment,
            # Not the user's folder: Python would look for packages there first.
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            # Ctrl-C in the terminal is the driver's alone.
            start_new_session=True,
        )


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
