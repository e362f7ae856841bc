"""What would an engine take of a device, by the engine arguments of a fleet file?"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from cluster.devices import Device
from cluster.engine_memory import EngineSettings, default_settings
from headrace.failure import bad_input

COUNTS = {
    "max_num_seqs": "max_sequences",
    "max_num_batched_tokens": "batched_tokens",
    "max_model_len": "context_tokens",
    "block_size": "block_tokens",
    "kv_cache_memory_bytes": "cache_bytes",
}
"""Arguments that are whole numbers here, and their names in EngineSettings. vLLM reads `8k` too."""
FOLLOWED = {*COUNTS, "gpu_memory_utilization", "kv_cache_dtype", "dtype"}


def settings_for(device: Device, *, context_tokens: int) -> EngineSettings:
    """What `headrace serve` has an engine take there where the file says nothing."""
    settings = default_settings(device, context_tokens=context_tokens)
    if device.capability != "cpu":
        return settings
    from deployments.replica_arguments import CPU_KV_BYTES

    return replace(settings, cache_bytes=CPU_KV_BYTES)


def settings(engine: Mapping[str, Any], device: Device, *, longest_tokens: int) -> EngineSettings:
    """With what the file says; `longest_tokens`: the context where it names none. Raises Failure."""
    for name in COUNTS.keys() & engine.keys():
        if not isinstance(engine[name], int) or engine[name] < 1:
            raise bad_input(f"engine.{name}: only a whole number above 0 can be planned with, got {engine[name]!r}")
    bare = settings_for(device, context_tokens=engine.get("max_model_len", longest_tokens))
    given = {ours: engine[theirs] for theirs, ours in COUNTS.items() if theirs in engine}
    found = replace(
        bare,
        **given,
        memory_share=engine.get("gpu_memory_utilization", bare.memory_share),
        kv_bits=8 if str(engine.get("kv_cache_dtype", "")).startswith("fp8") else bare.kv_bits,
    )
    return replace(found, max_sequences=min(found.max_sequences, found.batched_tokens))


def not_followed(engine: Mapping[str, Any]) -> list[str]:
    """Arguments that change nothing here."""
    return sorted(engine.keys() - FOLLOWED)
