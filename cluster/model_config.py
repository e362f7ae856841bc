"""Which model does a checkpoint hold? From its config.json and the headers of its files."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cluster import tensors as checkpoint
from cluster.config_keys import Config, UnknownModel, count, decoder_fields, open_config
from cluster.layer_mixers import layer_count, mixers
from cluster.loaded_weights import is_draft, parts
from cluster.model import Experts, Model, Recurrence
from cluster.tensors import DTYPES, Tensor

ENGINE_CONTEXT_TOKENS = 2048
"""What vLLM takes where nothing limits a context (config/model.py)."""
DTYPE_BITS = 16
"""vLLM computes in 16 bits what was saved in float32, unless it is told otherwise (config/model.py)."""
SCALED_BY_FACTOR = ("linear", "dynamic", "yarn")
"""Kinds of rotary scaling that lengthen a context beyond max_position_embeddings."""


def read(folder: Path) -> Model:
    """The model in a folder. Raises UnknownModel, UnreadableCheckpoint."""
    config = open_config(folder)
    try:
        return describe(config, checkpoint.read(folder))
    except UnknownModel as error:
        raise UnknownModel(f"{folder / 'config.json'}: {error}") from None


def describe(config: dict[str, Any], tensors: Iterable[Tensor]) -> Model:
    """The model that a config.json and tensors are of. Raises UnknownModel."""
    held, fields = tuple(tensors), decoder_fields(config)
    layers, dtype_bits, kv_bits = layer_count(fields), _dtype_bits(config, fields), _kv_bits(fields)
    tied = bool(_first(fields.get("tie_word_embeddings"), not any(tensor.part == "head" for tensor in held)))
    experts = _experts(fields, held, layers)
    looks = mixers(fields, layers, dtype_bits)
    return Model(
        architecture=_architecture(config),
        mixers=looks,
        layers=layers,
        hidden=count(fields, "hidden_size"),
        vocabulary=count(fields, "vocab_size"),
        context_tokens=_context_tokens(fields, all(isinstance(mixer, Recurrence) for mixer in looks)),
        parts=parts(held, dtype_bits=dtype_bits, layers=layers, tied=tied),
        experts=experts,
        neurons=_neurons(fields, experts, layers),
        dtype_bits=dtype_bits,
        kv_bits=kv_bits or dtype_bits,
        tied=tied,
        quantized=(fields.get("quantization_config") or {}).get("quant_method"),
    )


def _architecture(config: Config) -> str:
    named = config.get("architectures")
    return str(named[0]) if isinstance(named, list) and named else str(config.get("model_type"))


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _dtype_bits(config: Config, fields: Config) -> int:
    named = str(_first(fields.get("dtype"), config.get("dtype"), config.get("torch_dtype"))).removeprefix("torch.")
    if named not in (*DTYPES, "None"):
        raise UnknownModel(f"dtype: should be one of {', '.join(DTYPES)}, got {named}")
    return DTYPE_BITS


def _kv_bits(fields: Config) -> int | None:
    scheme = (fields.get("quantization_config") or {}).get("kv_cache_scheme") or {}
    return scheme.get("num_bits")


def _experts(fields: Config, held: tuple[Tensor, ...], layers: int) -> Experts | None:
    routed = {
        match[1]
        for tensor in held
        if tensor.part == "experts" and not is_draft(tensor, layers) and (match := re.search(r"\.(\d+)\.", tensor.name))
    }
    if not routed:
        return None
    active = count(fields, "num_experts_per_tok")
    return Experts(total=count(fields, "num_experts"), active=active, layers=len(routed))


def _neurons(fields: Config, experts: Experts | None, layers: int) -> int:
    dense = fields.get("intermediate_size_mlp") or fields.get("intermediate_size") or 4 * count(fields, "hidden_size")
    if experts is None or experts.layers < layers:
        return dense
    return fields.get("moe_intermediate_size") or fields.get("intermediate_size") or dense


def _context_tokens(fields: Config, forgets: bool) -> int:
    """max_position_embeddings, stretched as rotary scaling says."""
    longest = fields.get("max_position_embeddings")
    if longest is None:
        if not forgets:
            return count(fields, "max_position_embeddings")
        return ENGINE_CONTEXT_TOKENS
    rotary = fields.get("rope_parameters") or fields.get("rope_scaling") or {}
    kind, factor = rotary.get("rope_type") or rotary.get("type"), rotary.get("factor")
    if kind not in SCALED_BY_FACTOR or not factor or str(fields.get("model_type")).startswith("gemma3"):
        return longest
    return int(rotary.get("original_max_position_embeddings", longest) * factor)
