"""Decoders for tests: shapes without weights, and a small one that is real."""

from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from cluster.inventory import Machine
from cluster.tensors import Tensor
from compress.shape import Shape
from compress.text import Blocks

TEXT = Blocks(rows=tuple(tuple((7 * row + 3 * place) % 256 for place in range(32)) for row in range(4)))


def decoder(
    *,
    layers: int = 4,
    hidden: int = 128,
    heads: int = 4,
    kv_heads: int = 2,
    head_dim: int = 32,
    neurons: int = 384,
    vocabulary: int = 256,
    tied: bool = True,
    dtype: str = "BF16",
    **given: Any,
) -> Shape:
    """A model with Llama's tensors."""
    wide, narrow = heads * head_dim, kv_heads * head_dim
    maps = {
        "self_attn.q_proj": (wide, hidden),
        "self_attn.k_proj": (narrow, hidden),
        "self_attn.v_proj": (narrow, hidden),
        "self_attn.o_proj": (hidden, wide),
        "mlp.gate_proj": (neurons, hidden),
        "mlp.up_proj": (neurons, hidden),
        "mlp.down_proj": (hidden, neurons),
        "input_layernorm": (hidden,),
        "post_attention_layernorm": (hidden,),
    }
    sizes = {f"model.layers.{layer}.{path}": size for layer in range(layers) for path, size in maps.items()}
    sizes |= {"model.embed_tokens": (vocabulary, hidden), "model.norm": (hidden,)}
    sizes |= {} if tied else {"lm_head": (vocabulary, hidden)}
    fields: dict[str, Any] = {
        "architecture": "LlamaForCausalLM",
        "tensors": tuple(tensor(f"{name}.weight", size, dtype) for name, size in sorted(sizes.items())),
        "layers": layers,
        "hidden": hidden,
        "heads": heads,
        "kv_heads": kv_heads,
        "head_dim": head_dim,
        "neurons": neurons,
        "dtype": dtype,
        "kv_dtype": dtype,
        "tied": tied,
        "quantized": None,
    }
    return Shape(**fields | given)


def tensor(name: str, shape: tuple[int, ...], dtype: str = "BF16") -> Tensor:
    """A tensor that is stored unpacked."""
    weights = 1
    for size in shape:
        weights *= size
    return Tensor(name=name, shape=shape, dtype=dtype, weights=weights)


@st.composite
def decoders(draw: st.DrawFn) -> Shape:
    """Decoders of any widths that an architecture allows."""
    kv_heads, repeats = draw(st.integers(1, 6)), draw(st.integers(1, 4))
    return decoder(
        layers=draw(st.integers(1, 6)),
        hidden=8 * draw(st.integers(1, 100)),
        heads=kv_heads * repeats,
        kv_heads=kv_heads,
        head_dim=draw(st.sampled_from((16, 32, 64, 80, 128))),
        neurons=4 * draw(st.integers(2, 700)),
        vocabulary=draw(st.integers(2, 1000)),
        tied=draw(st.booleans()),
        dtype=draw(st.sampled_from(("BF16", "F16", "F32"))),
    )


def machine(*, features: str = "avx2", gpus: tuple[str, ...] = (), available_bytes: int = 8 * 10**9) -> Machine:
    """A machine with two cores."""
    return Machine(
        cores=2,
        memory_bytes=16 * 10**9,
        available_bytes=available_bytes,
        gpus=gpus,
        cpu_features=frozenset(features.split()),
    )


def small_llama(folder: Path, *, tied: bool) -> Any:
    """A random Llama of about 0.5 million weights, as it was read from the folder that it was saved in."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=256,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=64,
        tie_word_embeddings=tied,
    )
    random: Any = LlamaForCausalLM(config)
    random.to(torch.bfloat16).save_pretrained(folder)
    return AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()
