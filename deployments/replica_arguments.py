"""With which arguments does the engine of a replica start?"""

from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args

from deployments.engine_arguments import SERVER_SETTINGS
from deployments.fleet import Model

CPU_KV_BYTES = 1 << 30
"""KV cache of a CPU replica unless the fleet says otherwise: vLLM's own default is a share of the whole machine."""


def engine_arguments(model: Model, *, cpu: bool, avx512: bool) -> dict[str, Any]:
    """Engine arguments for one replica. On GPUs vLLM's own defaults stay; what the fleet gives always wins.

    On CPU: eager, which starts in a third of the time and makes tokens no slower; float32 where bfloat16 would be
    emulated.
    """
    arguments: dict[str, Any] = {
        "model": model.source,
        "served_model_name": [model.name],
        "tensor_parallel_size": model.tensor,
        "pipeline_parallel_size": model.pipeline_parallel,
        "distributed_executor_backend": "ray" if model.nodes > 1 else "mp",
        # Each step says how much it read of prompts: what it cost is divided by that.
        "enable_logging_iteration_details": True,
        # By routing.reading_order, which each request brings.
        "scheduling_policy": "priority",
    }
    if cpu:
        arguments |= {"enforce_eager": True, "kv_cache_memory_bytes": CPU_KV_BYTES}
        if not avx512:
            arguments["dtype"] = "float32"
    return arguments | {name: value for name, value in model.engine.items() if name not in SERVER_SETTINGS}


def with_configs(arguments: dict[str, Any], kinds: type) -> dict[str, Any]:
    """The same, with mappings as the config objects that the fields of the dataclass `kinds` want.

    As vLLM's command line makes them of JSON; the class itself does so for some fields only. Raises what a config
    raises that does not know a name or refuses a value.
    """
    wanted = {field.name: field.type for field in fields(kinds)}

    def made(name: str, value: Any) -> Any:
        kind = wanted.get(name)
        config = next((one for one in get_args(kind) or (kind,) if is_dataclass(one)), None)
        return config(**value) if isinstance(config, type) and isinstance(value, dict) else value

    return {name: made(name, value) for name, value in arguments.items()}


def has_avx512() -> bool:
    """Whether this machine's processor computes bfloat16 itself, or nearly so."""
    return "avx512f" in Path("/proc/cpuinfo").read_text()
