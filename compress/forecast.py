"""What will a checkpoint consist of after a step of a recipe? Arithmetic over its tensors, no weights needed."""

from dataclasses import replace
from math import ceil

from cluster.tensors import LAYER, Tensor
from compress.layers import Unsupported
from compress.quantize import group_size
from compress.recipe import Distil, DropLayers, FewerLayers, Mask, NarrowAttention, NarrowFfn, Quantize, Step
from compress.shape import Shape

FFN = ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
ATTENTION = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")


class Impossible(ValueError):
    """A step that a model's shape does not allow: which of its fields, what it was and what would work."""

    def __init__(self, field: str, text: str) -> None:
        super().__init__(text)
        self.field = field


def after(shape: Shape, step: Step) -> Shape:
    """The checkpoint that is saved after a step: its bytes are exact where all layers are alike. Raises Impossible."""
    _refuse(shape)
    match step:
        case DropLayers():
            return _without_layers(saved(shape), step)
        case NarrowFfn():
            return _narrow_ffn(saved(shape), step)
        case NarrowAttention():
            return _narrow_attention(saved(shape), step)
        case Mask():
            return _masked(saved(shape), step)
        case Distil():
            return _student(saved(shape), step)
        case Quantize():
            return _quantized(saved(shape), step)


def _refuse(shape: Shape) -> None:
    if shape.quantized:
        raise Impossible(
            "do", f"what is quantized ({shape.quantized}) can't be changed: begin with what it was made of"
        )
    if not shape.maps:
        raise Impossible("do", f"{shape.architecture} has no list of layers at model.layers: no step knows it")


def saved(shape: Shape) -> Shape:
    """The same weights as transformers writes them: in the config's dtype, a tied head once, no computed buffers."""
    kept = [
        replace(tensor, dtype=shape.dtype) if tensor.dtype in ("BF16", "F16", "F32", "F64") else tensor
        for tensor in shape.tensors
        if not (shape.tied and tensor.part == "head") and not tensor.name.endswith("rotary_emb.inv_freq")
    ]
    return replace(shape, tensors=tuple(kept))


def ffn_width(neurons: int, step: NarrowFfn) -> int:
    """How many neurons narrow_ffn leaves: the multiple that is nearest to what the share leaves."""
    return round(neurons * (1 - step.share) / step.multiple) * step.multiple


def group(shape: Shape, step: Quantize) -> int | None:
    """Weights that will share a scale; None: a whole channel, or no 4-bit weights. Raises Impossible."""
    try:
        return group_size(step, sorted({tensor.shape[1] for tensor in shape.maps}))
    except Unsupported as error:
        raise Impossible("group", str(error).removeprefix("quantize: ")) from None


def _without_layers(shape: Shape, step: DropLayers) -> Shape:
    left = shape.layers - step.layers
    if left < 1:
        raise Impossible("layers", f"must be below the model's {shape.layers}, got {step.layers}")
    return _with_layers(shape, left)


def _student(shape: Shape, step: Distil) -> Shape:
    if step.top_k > shape.vocabulary:
        raise Impossible("top_k", f"must be at most the model's vocabulary of {shape.vocabulary}, got {step.top_k}")
    if not isinstance(step.student, FewerLayers):
        return shape
    if step.student.layers >= shape.layers:
        raise Impossible("student.layers", f"must be below the model's {shape.layers}, got {step.student.layers}")
    return _with_layers(shape, step.student.layers)


def _with_layers(shape: Shape, left: int) -> Shape:
    kept = tuple(tensor for tensor in shape.tensors if tensor.layer is None or tensor.layer < left)
    return replace(shape, tensors=kept, layers=left)


def _narrow_ffn(shape: Shape, step: NarrowFfn) -> Shape:
    before = _known(shape, step.do, FFN, shape.neurons, "intermediate_size")
    width = ffn_width(before, step)
    if not 0 < width < before:
        raise Impossible("share", f"{step.share} leaves {width} of {before} neurons: {_shares(before, step)}")
    gate, up, down = FFN
    return replace(_resized(shape, rows={gate: width, up: width}, columns={down: width}), neurons=width)


def _narrow_attention(shape: Shape, step: NarrowAttention) -> Shape:
    _known(shape, step.do, ATTENTION, shape.kv_heads, "num_key_value_heads")
    left = shape.kv_heads - step.kv_heads
    if left < 1:
        raise Impossible("kv_heads", f"must be below the model's {shape.kv_heads}, got {step.kv_heads}")
    heads = left * (shape.heads // shape.kv_heads)
    wide, narrow = heads * shape.head_dim, left * shape.head_dim
    query, key, value, output = ATTENTION
    resized = _resized(shape, rows={query: wide, key: narrow, value: narrow}, columns={output: wide})
    return replace(resized, heads=heads, kv_heads=left)


def _masked(shape: Shape, step: Mask) -> Shape:
    odd = sorted({tensor.shape[1] for tensor in shape.maps if tensor.shape[1] % 4})
    if step.pattern == "2:4" and odd:
        raise Impossible("pattern", f"2:4 needs widths that divide by 4, the model has {odd}: unstructured would work")
    return shape


def _quantized(shape: Shape, step: Quantize) -> Shape:
    size = group(shape, step)
    maps = {tensor.name for tensor in shape.maps}
    tensors = [tensor for tensor in shape.tensors if tensor.name not in maps]
    for tensor in shape.maps:
        tensors += _packed(tensor, step, size) if step.scheme.startswith("w4") else _bytewise(tensor, step)
    if step.kv_cache == "fp8":
        prefixes = [f"model.layers.{layer}.self_attn" for layer in range(shape.layers)]
        tensors += [_scale(f"{prefix}.{name}_scale", (1,), shape.dtype) for prefix in prefixes for name in "kv"]
    kv_dtype = "F8_E4M3" if step.kv_cache == "fp8" else shape.kv_dtype
    ordered = tuple(sorted(tensors, key=lambda tensor: tensor.name))
    return replace(shape, tensors=ordered, kv_dtype=kv_dtype, quantized="compressed-tensors")


def _bytewise(tensor: Tensor, step: Quantize) -> list[Tensor]:
    """compressed-tensors' int-quantized and float-quantized: a byte for a weight, a scale for a row."""
    dtype = "F8_E4M3" if step.scheme == "fp8" else "I8"
    return [replace(tensor, dtype=dtype), _scale(f"{tensor.name}_scale", (tensor.shape[0], 1), tensor.dtype)]


def _packed(tensor: Tensor, step: Quantize, size: int | None) -> list[Tensor]:
    """compressed-tensors' pack-quantized: eight 4-bit weights of a row, or zero points of a column, in an int32."""
    rows, columns = tensor.shape
    groups = 1 if size is None else columns // size
    parts = [
        replace(tensor, name=f"{tensor.name}_packed", shape=(rows, ceil(columns / 8)), dtype="I32"),
        _scale(f"{tensor.name}_scale", (rows, groups), tensor.dtype),
        _scale(f"{tensor.name}_shape", (2,), "I64"),
    ]
    if step.scheme == "w4a16_asym":
        parts.append(_scale(f"{tensor.name}_zero_point", (ceil(rows / 8), groups), "I32"))
    return parts


def _scale(name: str, shape: tuple[int, ...], dtype: str) -> Tensor:
    return Tensor(name=name, shape=shape, dtype=dtype, weights=0)


def _known(shape: Shape, step: str, paths: tuple[str, ...], count: int | None, field: str) -> int:
    """The count, where every layer has the linear maps at these paths. Raises Impossible."""
    names = {tensor.name for tensor in shape.maps}
    layers = {tensor.layer for tensor in shape.maps}
    missing = next(
        (path for layer in layers for path in paths if f"model.layers.{layer}.{path}.weight" not in names), None
    )
    what = f"no linear map {missing} in every layer" if missing else f"no {field} in config.json"
    if missing or count is None:
        raise Impossible("do", f"{step} does not know {shape.architecture}: it has {what}; drop_layers would work")
    return count


def _resized(shape: Shape, *, rows: dict[str, int], columns: dict[str, int]) -> Shape:
    """Maps at the paths get other numbers of rows (and biases) or columns."""

    def resized(tensor: Tensor) -> Tensor:
        found = LAYER.fullmatch(tensor.name)
        path, _, kind = found[2].rpartition(".") if found else ("", "", "")
        if kind == "weight" and path in columns:
            size = (tensor.shape[0], columns[path])
        elif path in rows:
            size = (rows[path], *tensor.shape[1:])
        else:
            return tensor
        return replace(tensor, shape=size, weights=size[0] * (size[1] if len(size) > 1 else 1))

    return replace(shape, tensors=tuple(resized(tensor) for tensor in shape.tensors))


def _shares(neurons: int, step: NarrowFfn) -> str:
    """Which share would work, in words."""
    widest = (neurons - 1) // step.multiple * step.multiple
    if widest == 0:
        return f"multiple must be below {neurons}, got {step.multiple}"
    nearest = min(max(ffn_width(neurons, step), step.multiple), widest)
    return f"{1 - nearest / neurons:.4f} would leave {nearest}"
