"""How is Ray's own LLM layer, `ray.serve.llm`, started here: as shipped, and as fast as its switches make it?"""

import os
import random
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.cpu_time import parts_of_ray_llm
from benchmarks.servers import (
    EXECUTOR,
    HOST,
    MODEL,
    Arguments,
    BenchmarkFailed,
    Server,
    await_answer,
    await_true,
    bound,
    free_port,
    kept,
)
from cluster import launch
from headrace.serve_rest import ServeRefused, ServeRest

DEFAULTS, DIRECT = "ray-llm", "ray-llm-direct"
LOGICAL_CPUS = 8
"""What Ray counts, so that all its replicas are placed."""


@contextmanager
def ray_llm(folder: Path, core: str, engine: Arguments, *, direct: bool) -> Iterator[Server]:
    """`ray.serve.llm` behind Serve's proxy; `direct`: with HAProxy, direct streaming and the throughput switch, and
    without batches of the stream. Raises BenchmarkFailed.
    """
    name, ports, port = DIRECT if direct else DEFAULTS, launch.free_ports(random.Random()), free_port()

    def environment(run_id: str, place: Path) -> dict[str, str]:
        launch.write_token(place / "token")
        given = dict(os.environ) | bound(core) | {"RAYLLM_ENABLE_REQUEST_PROMPT_LOGS": "0"}
        switches = _switches(place) if direct else {}
        return launch.environment(given | switches, run_id=run_id, token=place / "token", ports=ports)

    def command(place: Path) -> list[str]:
        return launch.ray_command(ports, folder=place, cpus=LOGICAL_CPUS, gpus=0)

    with kept(name, environment, command) as (place, keeper, run_id):
        rest, log = (
            ServeRest(f"http://{HOST}:{ports.dashboard}", (place / "token").read_text().strip()),
            place / "ray.log",
        )
        _deploy(rest, keeper, log, schema(folder, port, engine, direct=direct))
        await_answer(port, "/v1/models", keeper, log)
        yield Server(name=name, port=port, parts=partial(parts_of_ray_llm, run_id))


def schema(folder: Path, port: int, engine: Arguments, *, direct: bool) -> dict[str, Any]:
    """Serve's declarative configuration; access logs off."""
    model = {
        "model_loading_config": {"model_id": MODEL, "model_source": str(folder)},
        "accelerator_config": {"kind": "cpu"},
        "engine_kwargs": engine | EXECUTOR,
    }
    if direct:
        model["experimental_configs"] = {"stream_batching_interval_ms": 0}
    return {
        "http_options": {"host": HOST, "port": port},
        "logging_config": {"enable_access_log": False},
        "applications": [
            {
                "name": "llm",
                "route_prefix": "/",
                "import_path": "ray.serve.llm:build_openai_app",
                "args": {"llm_configs": [model]},
                "logging_config": {"enable_access_log": False},
            }
        ],
    }


def _switches(place: Path) -> dict[str, str]:
    """Environment of the fast form. HAProxy's files and ports are its own, since there is one of it by default."""
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_LLM_ENABLE_DIRECT_STREAMING": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(place / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(place / "admin.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(place / "metrics.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(place),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(place / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
    }


def _deploy(rest: ServeRest, keeper: subprocess.Popen[bytes], log: Path, wanted: dict[str, Any]) -> None:
    await_true(rest.is_up, keeper, log)
    try:
        rest.deploy(wanted)
    except ServeRefused as error:
        raise BenchmarkFailed(f"Serve refused the application: {error}") from None
    await_true(lambda: _runs(rest), keeper, log)


def _runs(rest: ServeRest) -> bool:
    said = rest.applications().get("llm", {})
    if said.get("status") in ("DEPLOY_FAILED", "UNHEALTHY"):
        told = [part.get("message", "") for part in said.get("deployments", {}).values()]
        raise BenchmarkFailed(" | ".join([said.get("message", ""), *told])[-2000:])
    return said.get("status") == "RUNNING"
