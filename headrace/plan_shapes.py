"""What tensors would a model have of which only config.json is there? transformers builds it without numbers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cluster.tensors import Tensor, UnreadableCheckpoint, from_headers
from headrace.fetching.quiet import quiet_transformers

Header = tuple[str, tuple[int, ...]]
"""dtype and shape."""
DTYPES = {
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "float8_e8m0fnu": "F8_E8M0",
    "uint8": "U8",
    "int8": "I8",
}
DTYPES |= {"int32": "I32", "int64": "I64", "bool": "BOOL"}
"""torch's words that safetensors writes otherwise, beside those that `from_headers` knows."""
FUSED = {"gate_up_proj": ("gate_proj", "up_proj"), "down_proj": ("down_proj",)}
"""transformers' maps of all experts in one tensor, and what lies in them on disk."""


def imagined(folder: Path) -> tuple[Tensor, ...]:
    """The tensors by the names and dtypes that a checkpoint would have. Raises UnreadableCheckpoint."""
    headers = {
        name.replace("_scale_inv", ".weight_scale_inv") if "experts" in name else name: header
        for name, header in _built(folder).items()
    }
    if not any(name.endswith("weight_scale_inv") for name in headers):
        headers = dict(_apart(headers))
    return from_headers(headers)


def _built(folder: Path) -> dict[str, Header]:
    import torch
    import transformers

    try:
        with quiet_transformers(), torch.device("meta"):
            model = _model(transformers.AutoConfig.from_pretrained(folder))
    except Exception as error:  # a model's own code raises what it likes for a config that it can't take
        cause = " ".join(str(error).split())[:160]
        raise UnreadableCheckpoint(
            f"{folder}: has no *.safetensors file, and transformers can't build it from config.json: {cause}"
        ) from None
    tied = set(getattr(model, "all_tied_weights_keys", None) or ())
    tensors = {name: tensor for name, tensor in model.state_dict().items() if name not in tied}
    return {name: (_word(tensor.dtype), tuple(tensor.shape)) for name, tensor in tensors.items()}


def _model(config: Any) -> Any:
    """On the device that is torch's default now, quantized where the config says so."""
    import torch
    import transformers
    from transformers.quantizers.auto import AutoHfQuantizer

    kind = getattr(transformers, next(iter(config.architectures or ()), ""), None)
    settings = {"dtype": config.dtype or torch.bfloat16}
    if kind is None:
        model = transformers.AutoModelForCausalLM.from_config(config, **settings)
    else:
        model = kind._from_config(config, **settings)
    if quantized := getattr(config, "quantization_config", None):
        AutoHfQuantizer.from_config(quantized, pre_quantized=True).preprocess_model(model)
    return model


def _word(dtype: Any) -> str:
    name = str(dtype).removeprefix("torch.")
    return DTYPES.get(name, name)


def _apart(headers: dict[str, Header]) -> Iterator[tuple[str, Header]]:
    """Each expert's maps by themselves, as they lie on disk where a map's last dimension is its input."""
    for name, (dtype, shape) in headers.items():
        path, _, last = name.rpartition(".")
        parts = FUSED.get(last, ())
        if not path.endswith(".experts") or len(shape) != 3 or not parts:
            yield name, (dtype, shape)
            continue
        for expert in range(shape[0]):
            for part in parts:
                yield f"{path}.{expert}.{part}.weight", (dtype, (shape[1] // len(parts), shape[2]))
