"""What does routing know of a request?"""

from dataclasses import dataclass
from enum import IntEnum
from math import inf


class Tier(IntEnum):
    """How urgent a request is; the lower, the sooner."""

    INTERACTIVE = 0
    """Somebody waits for each word."""
    STANDARD = 1
    BATCH = 2
    """Takes what the others leave."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One prompt that waits for a replica."""

    id: int
    """Unique within its router."""
    prompt_tokens: int
    max_output_tokens: int
    arrived_s: float
    tenant: str = ""
    tier: Tier = Tier.INTERACTIVE
    deadline_s: float = inf
    """When its first token must be there, by the clock of `arrived_s`."""
    key: int = 0
    """The same when the same request is sent again."""
    blocks: tuple[int, ...] = ()
    """Keys of the prompt's whole blocks, from `prefix_keys`: what begins alike can share its KV cache."""
