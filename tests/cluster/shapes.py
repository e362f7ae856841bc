"""Models of known size, and what hypothesis may draw of them."""

from hypothesis import strategies as st

from cluster.model import Attention, Experts, LatentAttention, Model, Part, Recurrence
from cluster.tensors import PARTS


def dense(
    *, layers: int = 32, hidden: int = 4096, heads: int = 32, kv_heads: int = 8, neurons: int = 14336,
    vocabulary: int = 128_256, context_tokens: int = 131_072, window_tokens: int | None = None, tied: bool = False,
) -> Model:  # fmt: skip
    """A decoder like Llama's, in bfloat16; the defaults are Llama 3.1 8B's."""
    head_dim = hidden // heads
    weights = {
        "embedding": vocabulary * hidden,
        "head": 0 if tied else vocabulary * hidden,
        "attention": layers * hidden * head_dim * 2 * (heads + kv_heads),
        "feed_forward": layers * 3 * hidden * neurons,
        "norms": (2 * layers + 1) * hidden,
    }
    mixer = Attention(
        heads=heads, kv_heads=kv_heads, head_dim=head_dim, value_dim=head_dim, window_tokens=window_tokens
    )
    return Model(
        architecture="LlamaForCausalLM",
        mixers=(mixer,) * layers,
        layers=layers,
        hidden=hidden,
        vocabulary=vocabulary,
        context_tokens=context_tokens,
        parts={name: Part(bytes=2 * weights.get(name, 0), weights=weights.get(name, 0)) for name in PARTS},
        experts=None,
        neurons=neurons,
        dtype_bits=16,
        kv_bits=16,
        tied=tied,
        quantized=None,
    )


def mixture() -> Model:
    """Mixtral 8x7B."""
    layers, hidden, neurons, experts = 32, 4096, 14336, 8
    routed = layers * experts * 3 * hidden * neurons
    weights = {
        "embedding": 32_000 * hidden,
        "head": 32_000 * hidden,
        "attention": layers * hidden * 128 * 2 * (32 + 8),
        "feed_forward": layers * hidden * experts,
        "experts": routed,
        "norms": (2 * layers + 1) * hidden,
    }
    return Model(
        architecture="MixtralForCausalLM",
        mixers=(Attention(heads=32, kv_heads=8, head_dim=128, value_dim=128),) * layers,
        layers=layers,
        hidden=hidden,
        vocabulary=32_000,
        context_tokens=32_768,
        parts={name: Part(bytes=2 * weights.get(name, 0), weights=weights.get(name, 0)) for name in PARTS},
        experts=Experts(total=experts, active=2, layers=layers),
        neurons=neurons,
        dtype_bits=16,
        kv_bits=16,
        tied=False,
        quantized=None,
    )


LATENT = LatentAttention(heads=128, latent_rank=512, rope_dim=64, nope_dim=128, value_dim=128)
STATE = Recurrence(heads=64, states=(((3, 4096), 16), ((64, 64, 128), 32)), flops_per_token=1_000_000)


@st.composite
def models(draw: st.DrawFn) -> Model:
    """Decoders of many sizes."""
    kv_heads = draw(st.sampled_from((1, 2, 4, 8)))
    heads = kv_heads * draw(st.integers(1, 4))
    return dense(
        layers=draw(st.integers(1, 48)),
        hidden=heads * draw(st.sampled_from((64, 128))),
        heads=heads,
        kv_heads=kv_heads,
        neurons=64 * draw(st.integers(1, 300)),
        vocabulary=draw(st.integers(1_000, 150_000)),
        context_tokens=draw(st.integers(64, 65_536)),
        window_tokens=draw(st.none() | st.integers(16, 4_096)),
        tied=draw(st.booleans()),
    )
