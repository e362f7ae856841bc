"""Can this machine carry this fleet? Looked at before anything is started."""

import errno
import socket
from pathlib import Path

from cluster.inventory import Machine
from cluster.node_room import Node
from cluster.placement import NoRoom
from deployments.declare import logical_cpus
from deployments.fleet import Fleet, Model, RouterSettings
from deployments.wishes import room_for_least
from headrace.failure import Failure, bad_input
from headrace.fitting import check_fit

PROCESS_BYTES = 700_000_000
"""Memory of a replica, an engine core or a worker beside weights and KV cache.

Measured with vLLM 0.29 on CPU: 0.46, 0.43 and 0.66 GB, memory that they share counted once.
"""
FLOAT32_BYTES = 4


def check_hardware(fleet: Fleet, machine: Machine) -> None:
    """Raises Failure when the hardware does not carry the fleet. Sources are folders by now."""
    for model in fleet.engines:
        _check_devices(model, machine)
        check_fit(model, machine)
    if machine.gpus:
        _check_gpus(fleet, machine)
    else:
        _check_memory(fleet, machine)


def check_port(router: RouterSettings) -> None:
    """Raises Failure when the router could not listen: says who holds the port and how to use another."""
    family = socket.AF_INET6 if ":" in router.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((router.host, router.port))
        except socket.gaierror:
            raise bad_input(f"router.host: {router.host!r} is no address of this machine") from None
        except OSError as error:
            raise _unusable(router, error) from None


def memory_need_bytes(model: Model, *, avx512: bool) -> int:
    """Memory that one CPU replica of a local checkpoint needs: weights, cache, processes. Raises Failure."""
    from deployments.replica_arguments import engine_arguments

    arguments = engine_arguments(model, cpu=True, avx512=avx512)
    cache_bytes = arguments["kv_cache_memory_bytes"]
    if not isinstance(cache_bytes, int):
        raise bad_input(f"{model.name}: engine.kv_cache_memory_bytes: should be a number of bytes, got {cache_bytes!r}")
    ranks = model.ranks
    weights_bytes = _weights_bytes(Path(model.source), widened=arguments.get("dtype") == "float32")
    return model.data_parallel * weights_bytes + ranks * cache_bytes + (2 + ranks) * PROCESS_BYTES


def holder(port: int) -> str:
    """The process that listens on a port, as pid and command line; says so when it can't be seen."""
    import psutil

    for connection in psutil.net_connections("tcp"):
        at_port = bool(connection.laddr) and connection.laddr.port == port
        if at_port and connection.status == psutil.CONN_LISTEN and connection.pid:
            try:
                command = " ".join(" ".join(psutil.Process(connection.pid).cmdline()).split())
            except psutil.Error:
                continue
            return f"pid {connection.pid} ({command[:80]})"
    return "a process that this user can't see"


def _unusable(router: RouterSettings, error: OSError) -> Failure:
    if error.errno == errno.EADDRINUSE:
        return Failure(f"port {router.port} is in use by {holder(router.port)}: end it, or take another with --port")
    if error.errno == errno.EACCES:
        return bad_input(f"router.port: {router.port} is reserved for root: take one from 1024 up with --port")
    return bad_input(f"router.host: can't listen on {router.host}: {(error.strerror or str(error)).lower()}")


def _check_devices(model: Model, machine: Machine) -> None:
    if model.nodes > 1:
        raise bad_input(
            f"{model.name}: nodes is {model.nodes}, but `headrace serve` starts Ray on this machine alone: "
            "nodes must be 1 here"
        )
    if not machine.gpus and model.ranks > machine.cores:
        raise bad_input(
            f"{model.name}: tensor_parallel x pipeline_parallel is {model.ranks}, "
            f"this machine has {machine.cores} CPU cores"
        )


def _check_gpus(fleet: Fleet, machine: Machine) -> None:
    """CPUs are no matter: Ray is told of as many as the fleet needs."""
    here = Node(name="this machine", amounts={"GPU": len(machine.gpus), "CPU": logical_cpus(fleet)})
    try:
        room_for_least(fleet, [here])
    except NoRoom as error:
        raise bad_input(str(error)) from None


def _check_memory(fleet: Fleet, machine: Machine) -> None:
    avx512 = "avx512f" in machine.cpu_features
    needs = {model.name: model.replicas.min * memory_need_bytes(model, avx512=avx512) for model in fleet.engines}
    lacking_bytes = sum(needs.values()) - machine.available_bytes
    if lacking_bytes > 0:
        each = ", ".join(f"{name} {_gb(need)}" for name, need in needs.items())
        raise Failure(
            f"too little memory by {_gb(lacking_bytes)}: {each} needed, "
            f"{_gb(machine.available_bytes)} available; "
            "take a smaller model, fewer replicas (replicas.min) or a smaller KV cache "
            "(engine: kv_cache_memory_bytes)"
        )


def _weights_bytes(folder: Path, *, widened: bool) -> int:
    files = list(folder.glob("*.safetensors"))
    return sum(_parameters(file) * FLOAT32_BYTES if widened else file.stat().st_size for file in files)


def _parameters(file: Path) -> int:
    from math import prod

    from safetensors import safe_open

    with safe_open(file, framework="numpy") as tensors:
        return sum(prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118


def _gb(count_bytes: int) -> str:
    return f"{count_bytes / 1e9:.1f} GB"
