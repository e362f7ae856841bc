"""Does the engine compute what the compressor computed? If not, by how much is it off, and what is likely wrong?"""

from compress import report, scores
from compress.scores import Scores

KL_LIMIT = {"float32": 0.002, "bfloat16": 0.02, "float16": 0.02}
"""Largest mean KL by the engine's dtype, nats per token, while activations stay as they are."""
ROUNDED_KL_LIMIT = 0.06
"""The same where activations are rounded to 8 bits: kernels may round otherwise, AVX2's more than others."""
TOP1_LIMIT, ROUNDED_TOP1_LIMIT = 0.9, 0.8
NO_EFFECT = 3.0
"""A parent that is so many times nearer to the engine than the compressed model is: the engine serves the parent."""


class GateFailed(RuntimeError):
    """An engine that computes something else than the compressor; the text says by how much and what is likely."""


def judge(engine: Scores, compressor: Scores, parent: Scores, *, dtype: str, rounded: bool) -> report.Gate:
    """Compares what they say of the gate's text. Raises GateFailed.

    `rounded`: the scheme rounds activations or the key-value cache.
    """
    gate = report.Gate(
        tokens=engine.nats.size,
        kl=float(scores.distance(engine, compressor).mean()),
        top1=float(scores.agreement(engine, compressor).mean()),
        kl_limit=ROUNDED_KL_LIMIT if rounded else KL_LIMIT.get(dtype, KL_LIMIT["bfloat16"]),
        top1_limit=ROUNDED_TOP1_LIMIT if rounded else TOP1_LIMIT,
        engine_dtype=dtype,
    )
    from_parent = float(scores.distance(engine, parent).mean())
    if from_parent * NO_EFFECT < gate.kl:
        raise GateFailed(
            f"gate failed: the engine is nearer to the parent (KL {from_parent:.4f} nats per token) than to the "
            f"compressed model ({gate.kl:.4f}): it serves the step without effect"
        )
    if not (gate.kl <= gate.kl_limit and gate.top1 >= gate.top1_limit):
        raise GateFailed(
            f"gate failed: the engine differs from the compressor by KL {gate.kl:.4f} nats per token and agrees on "
            f"{gate.top1:.1%} of the likeliest tokens; good {dtype} engines stay under {gate.kl_limit} and over "
            f"{gate.top1_limit:.0%}: {_likely(engine)}"
        )
    return gate


def _likely(engine: Scores) -> str:
    if len(set(engine.likeliest[..., 0].flatten().tolist())) == 1:
        return "it says the same token everywhere, as when the head was lost"
    return "a wrong kernel on this machine, or weights that it reads otherwise than they were saved"
