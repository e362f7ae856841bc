"""When would each request of a trace get its tokens from one engine?"""

from collections.abc import Iterable

from simulation.decodes import Sequence
from simulation.engine import Engine

Arrival = tuple[float, int, int]
"""Seconds, tokens of the prompt, tokens of the answer."""


def replay(arrivals: Iterable[Arrival], engine: Engine) -> list[Sequence]:
    """Every request, in order of arrival, with its times. Raises ValueError where they are out of order, or where one
    could never run (`Engine.add`). The engine's `log` has the steps.
    """
    sequences: list[Sequence] = []
    for arrival_s, prompt_tokens, output_tokens in arrivals:
        if sequences and arrival_s < sequences[-1].arrival_s:
            raise ValueError(f"arrivals must be in order, got {arrival_s} after {sequences[-1].arrival_s}")
        sequence = Sequence(arrival_s=arrival_s, prompt_tokens=prompt_tokens, output_tokens=output_tokens)
        engine.advance(arrival_s)
        engine.add(sequence)
        sequences.append(sequence)
    engine.advance()
    return sequences
