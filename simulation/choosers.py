"""Which replica would other routers give a request to? Restated from their own files, for comparison.

Each sends a request at once, when it comes: engines' own queues hold what waits. All of them see here what replicas
have at that very moment, which is fresher than what they are told in reality.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

BLOCK_TOKENS = 16
"""Of a block of an engine's cache, vLLM's default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One replica, when a request comes. Tokens are of prompts."""

    requests: int
    """That were sent there and have not ended."""
    waiting: int
    """Of those, in the engine's own queue."""
    tokens: int
    """Of all that were sent there and have not ended."""
    unread_tokens: int
    """Of those without a first token, what is not in the cache."""
    held_blocks: int
    """Of those that have not ended; what several of them share counts once."""
    kv_share: float
    """Of the cache that running requests take."""
    sent_tokens: int = 0
    """That were ever sent there; what was sent there before counts once."""
    cached_tokens: int = 0
    """Of this prompt, in its cache."""
    sent_before_tokens: int = 0
    """Of this prompt, what was sent there before, whether it is still in the cache or not."""
    new_blocks: int = 0
    """Of this prompt, what no request there holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request, when it comes."""

    prompt_tokens: int
    number: int
    """Requests that the router was asked before."""


Chooser = Callable[[Asked, Sequence[Seen], Random], int]
"""The place of the replica that gets the request."""


def round_robin(asked: Asked, seen: Sequence[Seen], random: Random) -> int:
    """One after the other: Kubernetes' services, production-stack's default."""
    return asked.number % len(seen)


def power_of_two(asked: Asked, seen: Sequence[Seen], random: Random) -> int:
    """Ray Serve's default: of two drawn by lot, the one with fewer requests (serve/_private/request_router,
    ray 2.60). Ray LLM sets no limit to them.
    """
    drawn = random.sample(range(len(seen)), min(2, len(seen)))
    return min(drawn, key=lambda place: seen[place].requests)


def least_tokens(asked: Asked, seen: Sequence[Seen], random: Random) -> int:
    """The one with the fewest tokens in flight: llm-d's token-load scorer, SMG's token use."""
    return _least([one.tokens for one in seen], random)


def prefix_only(asked: Asked, seen: Sequence[Seen], random: Random) -> int:
    """Ray LLM's prefix-aware router with its defaults (prefix_aware_router.py, ray 2.60): the longest match, if it is
    a tenth of the prompt; else who was sent the fewest tokens ever. Load counts between equal ones only, as its
    threshold of imbalance is infinite, and nothing that was sent is forgotten.
    """
    longest = max([one.sent_before_tokens for one in seen])
    if longest >= 0.1 * asked.prompt_tokens:
        fitting = [place for place, one in enumerate(seen) if one.sent_before_tokens == longest]
    else:
        fewest = min([one.sent_tokens for one in seen])
        fitting = [place for place, one in enumerate(seen) if one.sent_tokens == fewest]
    return fitting[_least([seen[place].requests for place in fitting], random)]


def llm_d(asked: Asked, seen: Sequence[Seen], random: Random) -> int:
    """llm-d's default profile (pkg/epp/config/loader/defaults.go, llm-d-router): the highest of
    2 (longest queue - queue) / (longest - shortest) + 2 (1 - use of the cache) + 3 cached blocks / all blocks.
    """
    longest, shortest = max([one.waiting for one in seen]), min([one.waiting for one in seen])
    blocks = max(1, asked.prompt_tokens // BLOCK_TOKENS)
    scores = []
    for one in seen:
        queue = (longest - one.waiting) / (longest - shortest) if longest > shortest else 1.0
        prefix = min(1.0, one.cached_tokens // BLOCK_TOKENS / blocks)
        scores.append(2 * queue + 2 * (1 - one.kv_share) + 3 * prefix)
    return _least([-score for score in scores], random)


def dynamo(asked: Asked, seen: Sequence[Seen], random: Random) -> int:
    """Dynamo's default selector (lib/kv-router/src/scheduling/selector/default.rs): the least of blocks to read, those
    of this prompt among them and what is cached taken off, and blocks that requests would hold with this one.
    """
    costs = []
    for one in seen:
        read = max(0.0, (one.unread_tokens + asked.prompt_tokens - one.cached_tokens) / BLOCK_TOKENS)
        costs.append(read + one.held_blocks + one.new_blocks)
    return _least(costs, random)


CHOOSERS: dict[str, Chooser] = {
    "round_robin": round_robin,
    "power_of_two": power_of_two,
    "least_tokens": least_tokens,
    "prefix_only": prefix_only,
    "llm_d": llm_d,
    "dynamo": dynamo,
}
"""By the names that tables give them."""


def _least(costs: Sequence[float], random: Random) -> int:
    """The place of the least; of equal ones one by lot."""
    least = min(costs)
    places = [place for place, cost in enumerate(costs) if cost == least]
    return places[0] if len(places) == 1 else random.choice(places)
