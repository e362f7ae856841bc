"""Which streams go on at another replica when theirs is lost, and what must that one be told?

The ids said so far are sent with the request, as more of its prompt. What the next token depends on beyond the ids
before it would be lost, so streams of which that is true don't go on.
"""

from array import array
from dataclasses import dataclass, field
from typing import Any

import msgspec

from deployments.frames import Delta, Submit


@dataclass(slots=True)
class SoFar:
    """What has come of a stream, its reader's or not yet: another replica begins after that."""

    token_ids: "array[int]" = field(default_factory=lambda: array("I"))
    characters: int = 0
    """Of the text. Engines hold text back that may be the start of a stop string, or half a character."""
    cached_tokens: int | None = None
    """As the first replica told it: a later one finds more in its cache, of what is no prompt to the client."""

    def add(self, delta: Delta) -> None:
        """Counts in what has just come."""
        self.token_ids.extend(delta.token_ids)
        self.characters += len(delta.text)
        if self.cached_tokens is None:
            self.cached_tokens = delta.cached_tokens
        delta.cached_tokens = self.cached_tokens


def may_continue(order: Submit) -> bool:
    """Whether a stream is the same if another replica makes the rest of it.

    Not with several choices (each would need a request of its own), presence or frequency penalties (they count
    answers, and the ids so far would be prompt; a repetition penalty counts both alike), or a seed (the generator's
    state went with the replica), unless sampling is greedy. What is not streamed begins again instead.
    """
    asked = order.sampling
    penalized = asked.get("presence_penalty") or asked.get("frequency_penalty")
    seeded = "seed" in asked and asked.get("temperature") != 0
    return order.stream and asked.get("n", 1) == 1 and not penalized and not seeded


def go_on(order: Submit, so_far: SoFar) -> Submit:
    """The request for the next replica."""
    said, sent = so_far.token_ids.tolist(), so_far.characters
    return msgspec.structs.replace(order, attempt=order.attempt + 1, said_ids=said, sent_characters=sent)


def rest(sampling: dict[str, Any], said_tokens: int) -> dict[str, Any]:
    """Sampling parameters for what comes after `said_tokens`: the same, with that much less to say."""
    left = dict(sampling)
    if sampling.get("max_tokens") is not None:
        left["max_tokens"] = sampling["max_tokens"] - said_tokens
    if sampling.get("min_tokens"):
        left["min_tokens"] = max(0, sampling["min_tokens"] - said_tokens)
    return left
