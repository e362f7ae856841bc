"""How does a command get a Ray of its own for its tasks, and end it without leaving anything?"""

import logging
import os
import random
import secrets
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cluster import launch
from cluster.inventory import Machine
from cluster.processes import end_run
from headrace.failure import Failure
from headrace.folders import made, run_folder
from headrace.steps import Steps

LOOK_EVERY_S = 0.1
PATIENCE_S = 15.0


@contextmanager
def task_ray(machine: Machine, steps: Steps) -> Iterator[None]:
    """This process is connected to a fresh Ray on loopback as long as the block runs. Raises Failure."""
    run_id = secrets.token_hex(4)
    with made(run_folder(run_id)) as folder:
        ports, token = launch.free_ports(random.Random()), folder / "token"
        launch.write_token(token)
        environment = launch.environment(dict(os.environ), run_id=run_id, token=token, ports=ports)
        keeper = launch.start(
            launch.ray_command(ports, folder=folder, cpus=machine.cores, gpus=len(machine.gpus), dashboard=False),
            run_id=run_id,
            folder=folder,
            environment=environment,
        )
        try:
            with steps.step("Starting Ray", f"Ray runs on loopback, {machine.cores} cores"):
                _connect(ports, token, keeper, folder)
            yield
        finally:
            _end(keeper, run_id)


def _connect(ports: launch.Ports, token: Path, keeper: subprocess.Popen[bytes], folder: Path) -> None:
    # The node's manager is the last to listen; until then the cluster has no node to connect to.
    while not (_listens(ports.gcs) and _listens(ports.node_manager)):
        with suppress(subprocess.TimeoutExpired):
            keeper.wait(LOOK_EVERY_S)
            raise Failure(f"Ray did not start: {(folder / 'ray.log').read_text()[-2000:]}")
    # Read when ray is imported. A token of another cluster would go before the file's.
    for foreign in launch.FOREIGN:
        os.environ.pop(foreign, None)
    os.environ |= {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    import ray

    ray.init(
        address=f"127.0.0.1:{ports.gcs}",
        _node_ip_address="127.0.0.1",
        log_to_driver=False,
        logging_level=logging.ERROR,
        namespace="headrace",
    )


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(LOOK_EVERY_S)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _end(keeper: subprocess.Popen[bytes], run_id: str) -> None:
    import ray

    ray.shutdown()
    keeper.terminate()
    with suppress(subprocess.TimeoutExpired):
        keeper.wait(PATIENCE_S)
    end_run(run_id, grace_s=0)
