"""How long does a step take, told as fast as can be for the many steps of a simulation?"""

from collections.abc import Callable, Sequence

from cluster.devices import Device
from cluster.model import Attention, Model
from cluster.speed import Speeds, step_seconds
from cluster.step_time import Layout
from cluster.step_work import Chunk


def quick_step_seconds(
    model: Model, device: Device, speeds: Speeds, *, layout: Layout, kv_bits: int | None = None
) -> Callable[[Sequence[Chunk]], float]:
    """The same seconds as `step_seconds`. Of a dense model that attends to all of its context they are one maximum of
    two sums beside another, whose factors are found here by asking; of other models it is `step_seconds` itself.
    """
    step = step_seconds(model, device, speeds, layout=layout, kv_bits=kv_bits)
    plain = all(isinstance(mixer, Attention) and mixer.window_tokens is None for mixer in model.mixers)
    if model.experts or not plain:
        return step
    return _Sums(model, device, speeds, layout, kv_bits).seconds


class _Sums:
    """Factors of tokens, sequences, pairs of tokens and cached tokens."""

    def __init__(self, model: Model, device: Device, speeds: Speeds, layout: Layout, kv_bits: int | None) -> None:
        from cluster.step_time import step_time
        from cluster.step_work import work

        def parts(chunk: Chunk) -> tuple[float, ...]:
            done = work(model, [chunk], kv_bits=kv_bits)
            return done.linear_flops, done.head_flops, done.attention_flops, done.kv_bytes, done.weight_bytes

        one = Chunk(new_tokens=1, context_tokens=0)
        linear, head, attention, kv_bytes, weight_bytes = parts(one)
        peak = device.flops[speeds.dtype] * speeds.coefficients.compute * layout.tensor
        bandwidth = device.bandwidth_bytes_per_s * layout.tensor
        self._token_s, self._sequence_s = linear / peak, head / peak
        self._reading_s = weight_bytes / (bandwidth * speeds.coefficients.bandwidth)
        self._pair_s = attention / (peak * speeds.coefficients.attention)
        self._kv_s = kv_bytes / 2 / (bandwidth * speeds.coefficients.kv_bandwidth)
        bare = step_time(
            work(model, [one], kv_bits=kv_bits),
            device,
            speeds.coefficients,
            dtype=speeds.dtype,
            layers=model.layers,
            layout=layout,
        )
        more = step_time(
            work(model, [Chunk(new_tokens=2, context_tokens=0)], kv_bits=kv_bits),
            device,
            speeds.coefficients,
            dtype=speeds.dtype,
            layers=model.layers,
            layout=layout,
        )
        coefficients = speeds.coefficients
        reduced_s = more.reduce_s - bare.reduce_s
        self._over_step_s = coefficients.step_s + bare.reduce_s - reduced_s
        self._over_sequence_s = coefficients.sequence_s
        self._over_token_s = coefficients.token_s + reduced_s

    def seconds(self, chunks: Sequence[Chunk]) -> float:
        tokens = sequences = pairs = cached = 0.0
        for chunk in chunks:
            new, context, count = chunk.new_tokens, chunk.context_tokens, chunk.count
            tokens += new * count
            sequences += count
            pairs += count * (new * context + new * (new + 1) / 2)
            cached += count * (context + 2 * new)
        computing_s = self._token_s * tokens + self._sequence_s * sequences
        attending_s, moving_s = self._pair_s * pairs, self._kv_s * cached
        return (
            (computing_s if computing_s > self._reading_s else self._reading_s)
            + (attending_s if attending_s > moving_s else moving_s)
            + self._over_step_s
            + self._over_sequence_s * sequences
            + self._over_token_s * tokens
        )
