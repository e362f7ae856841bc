"""Which neurons and heads does a model need least, and how do the others take over their work?"""

from copy import deepcopy
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor, nn

from compress.forecast import ffn_width
from compress.layers import Report, Seen, Unsupported, part, shapes, walk
from compress.recipe import NarrowAttention, NarrowFfn
from compress.text import Blocks

DAMPING = 1e-3
"""Ridge of the least squares, as a share of each kept input's own square: without it rare neurons blow up."""
TINY = 1e-12
"""What counts as no input at all, as a share of the strongest one's square."""


def narrow_ffn(model: Any, step: NarrowFfn, text: Blocks, seed: int, report: Report) -> dict[str, Any]:
    """Removes neurons from every feed-forward network; returns the widths. Raises Unsupported."""
    before = _config(model, "intermediate_size", "narrow_ffn")
    after = ffn_width(before, step)
    if not 0 < after < before:
        raise Unsupported(
            f"narrow_ffn: {before} neurons less a share of {step.share} are {after} in multiples of {step.multiple}: "
            "choose another share or multiple"
        )
    random = torch.Generator().manual_seed(seed)
    for seen in walk(model, text, report):
        gate, up, down = (part(seen.layer, f"mlp.{name}_proj", "narrow_ffn") for name in ("gate", "up", "down"))
        gram = seen.gram(down)
        scores = _scores(step.by, gram, gate, up, down, random)
        kept = scores.topk(after).indices.sort().values
        _keep_inputs(down, kept, gram if step.repair else None)
        for linear in (gate, up):
            _keep_outputs(linear, kept)
    model.config.intermediate_size = after
    return {"neurons": [before, after]}


def _scores(by: str, gram: Tensor, gate: nn.Linear, up: nn.Linear, down: nn.Linear, random: torch.Generator) -> Tensor:
    match by:
        case "activation":
            return gram.diagonal().sqrt() * down.weight.double().norm(dim=0)
        case "magnitude":
            return gate.weight.norm(dim=1) * up.weight.norm(dim=1) * down.weight.norm(dim=0)
        case _:
            return torch.rand(len(gram), generator=random).to(gram.device)


def narrow_attention(model: Any, step: NarrowAttention, text: Blocks, report: Report) -> dict[str, Any]:
    """Removes key-value heads with their query heads from every layer; returns the counts. Raises Unsupported."""
    kv_heads = _config(model, "num_key_value_heads", "narrow_attention")
    heads = _config(model, "num_attention_heads", "narrow_attention")
    if step.kv_heads >= kv_heads:
        raise Unsupported(f"narrow_attention: kv_heads must be below the model's {kv_heads}, got {step.kv_heads}")
    head_dim = getattr(model.config, "head_dim", None) or model.config.hidden_size // heads
    left = kv_heads - step.kv_heads
    _refuse_other_widths(model, _with_heads(model.config, left, left * (heads // kv_heads), head_dim))
    for seen in walk(model, text, report):
        _narrow_one(seen, kv_heads, left, heads // kv_heads * head_dim, head_dim, step.repair)
        attention: Any = seen.layer.self_attn
        for name, count in (("num_heads", left * (heads // kv_heads)), ("num_key_value_heads", left)):
            if hasattr(attention, name):
                setattr(attention, name, count)
    model.config.head_dim = head_dim
    model.config.num_key_value_heads, model.config.num_attention_heads = left, left * (heads // kv_heads)
    return {"kv_heads": [kv_heads, left], "heads": [heads, left * (heads // kv_heads)]}


def _with_heads(config: Any, kv_heads: int, heads: int, head_dim: int) -> Any:
    """A copy of the config. Raises Unsupported where transformers would not read it."""
    after = deepcopy(config)
    after.head_dim, after.num_key_value_heads, after.num_attention_heads = head_dim, kv_heads, heads
    try:
        after.validate()
    except StrictDataclassError as error:
        why = error.__cause__ or error
        raise Unsupported(f"narrow_attention: kv_heads that leave {heads} heads are not allowed: {why}") from None
    return after


def _refuse_other_widths(model: Any, after: Any) -> None:
    """Raises Unsupported where fewer heads would change other weights than q, k, v and o, or those otherwise."""
    wide, narrow = after.num_attention_heads * after.head_dim, after.num_key_value_heads * after.head_dim
    rows = {"q_proj": wide, "k_proj": narrow, "v_proj": narrow}
    made = shapes(model, after)
    for name, tensor in model.state_dict().items():
        expected, owner = list(tensor.shape), name.split(".")[-2]
        if owner in rows:
            expected[0] = rows[owner]
        elif owner == "o_proj" and name.endswith("weight"):
            expected[1] = wide
        if list(made[name]) != expected:
            raise Unsupported(
                f"narrow_attention does not know this architecture: {type(model).__name__}'s {name} would be "
                f"{list(made[name])} with fewer heads, not {expected}"
            )


def _narrow_one(seen: Seen, kv_heads: int, left: int, group_width: int, head_dim: int, repair: bool) -> None:
    query, key, value, output = (part(seen.layer, f"self_attn.{name}_proj", "narrow_attention") for name in "qkvo")
    gram = seen.gram(output)
    scores = (gram.diagonal().sqrt() * output.weight.double().norm(dim=0)).view(kv_heads, group_width).sum(dim=1)
    groups = scores.topk(left).indices.sort().values
    wide, narrow = _columns(groups, group_width), _columns(groups, head_dim)
    _keep_inputs(output, wide, gram if repair else None)
    _keep_outputs(query, wide)
    for linear in (key, value):
        _keep_outputs(linear, narrow)


def _columns(groups: Tensor, width: int) -> Tensor:
    return (groups[:, None] * width + torch.arange(width, device=groups.device)).flatten()


def _keep_inputs(linear: nn.Linear, kept: Tensor, gram: Tensor | None) -> None:
    """Drops input columns. With X^T X of all inputs, the rest is fitted so that its output changes least:

    W' = W G[:, kept] (G[kept, kept] + damping)^-1, the least-squares solution over the calibration text.
    """
    weight = linear.weight.data[:, kept]
    if gram is not None:
        own = gram[kept][:, kept]
        # The least is for inputs that are always zero: they would leave nothing to divide by.
        own.diagonal().mul_(1 + DAMPING).clamp_(min=own.diagonal().max() * TINY or 1.0)
        fitted = torch.linalg.solve(own, gram[kept] @ linear.weight.data.double().T).T
        weight = fitted.to(linear.weight.dtype)
    linear.weight = nn.Parameter(weight.contiguous(), requires_grad=False)
    linear.in_features = len(kept)


def _keep_outputs(linear: nn.Linear, kept: Tensor) -> None:
    linear.weight = nn.Parameter(linear.weight.data[kept].contiguous(), requires_grad=False)
    if linear.bias is not None:
        linear.bias = nn.Parameter(linear.bias.data[kept].contiguous(), requires_grad=False)
    linear.out_features = len(kept)


def _config(model: Any, name: str, step: str) -> int:
    value = getattr(model.config, name, None)
    if not isinstance(value, int):
        raise Unsupported(f"{step} does not know this architecture: its config has no {name}")
    return value
