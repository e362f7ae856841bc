"""How is vLLM started in this process: quietly, on cores of its own, and with its own words where it fails?

Written against vLLM 0.29.0. GPU paths follow its sources; they were not run.
"""

import os
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from cluster import cores
from deployments.fleet import Model
from deployments.last_words import Said
from deployments.quick_imports import begun_uncollected, uncollected
from deployments.replica_arguments import engine_arguments, has_avx512, with_configs
from deployments.step_meter import StepMeter

LOGGING_SETTINGS = ("VLLM_CONFIGURE_LOGGING", "VLLM_LOGGING_CONFIG_PATH")


class EngineFailed(RuntimeError):
    """The engine did not start, or died when it was asked; its text holds the engine's own words."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Started:
    """An engine that can answer."""

    engine: Any
    """vLLM's AsyncLLM."""
    meter: StepMeter
    """It hears of every step."""
    claim: cores.Claim | None
    """The cores on which its workers run, on a CPU."""
    arguments: dict[str, Any]
    """What it was given, and what vLLM made of that."""


def start(model: Model, *, sharers: int, claims: Path | None) -> Started:
    """Starts an engine and blocks until it can answer (tens of seconds). Raises EngineFailed.

    `sharers`: engines that may run on this machine's cores at the same time (CPU only); `claims`: the folder in
    which they agree on cores.
    """
    with uncollected(), begun_uncollected():
        return _start(model, sharers, claims)


def _start(model: Model, sharers: int, claims: Path | None) -> Started:
    _quieten()
    _import_vllm()
    from vllm import envs
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.platforms import current_platform
    from vllm.usage.usage_lib import UsageContext
    from vllm.v1.engine.async_llm import AsyncLLM

    cpu = current_platform.is_cpu()
    claim = _bind_cores(model.ranks, sharers, claims) if cpu and claims is not None else None
    arguments = engine_arguments(model, cpu=cpu, avx512=has_avx512())
    meter = StepMeter()
    logger: Any = meter.as_stat_logger
    said = Said()
    envs.disable_envs_cache()
    try:
        asked = AsyncEngineArgs(**with_configs(arguments, AsyncEngineArgs))
        config = asked.create_engine_config(UsageContext.OPENAI_API_SERVER)
        engine = AsyncLLM.from_vllm_config(config, stat_loggers=[logger], disable_log_stats=True)
    except Exception as error:
        raise EngineFailed(said.reason(error)) from error
    # What vLLM does in its core only: looking variables up anew for every token is a tenth of this process.
    envs.enable_envs_cache()
    # vLLM adds its Prometheus recorder unasked; nobody can read it here.
    manager: Any = engine.logger_manager
    manager.stat_loggers = [meter]
    return Started(engine=engine, meter=meter, claim=claim, arguments=model.engine | vars(asked))


def _quieten() -> None:
    """Settings that vLLM reads at import; those already given stay."""
    for name, value in (("VLLM_NO_USAGE_STATS", "1"), ("VLLM_LOGGING_LEVEL", "WARNING")):
        os.environ.setdefault(name, value)
    # Keys are the routers': vLLM's application would ask for this one, which never reaches it.
    os.environ.pop("VLLM_API_KEY", None)


def _import_vllm() -> None:
    """Imports vLLM, which sets up logging in its own processes, but not in this one.

    That would close the handlers of every logger there is, Serve's too: a replica without a log file is stopped by the
    first controller that takes it over. What vLLM warns of goes to stderr all the same.
    """
    told = {name: os.environ.pop(name) for name in LOGGING_SETTINGS if name in os.environ}
    os.environ["VLLM_CONFIGURE_LOGGING"] = "0"
    import_module("vllm.logger")
    del os.environ["VLLM_CONFIGURE_LOGGING"]
    os.environ |= told


def _bind_cores(ranks: int, sharers: int, folder: Path) -> cores.Claim:
    usable = len(os.sched_getaffinity(0))
    claim = cores.claim(max(ranks, usable // max(1, sharers)), folder=folder)
    os.environ["VLLM_CPU_OMP_THREADS_BIND"] = cores.binding(claim.cores, ranks)
    return claim
