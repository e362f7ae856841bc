"""Which replica has how much of a prompt in its KV cache, as far as this router knows?

Each replica's cache is remembered as what was sent there, the longest unused forgotten first, as vLLM evicts. How much
a replica keeps is learnt from the cached tokens that its answers report: less than predicted means that it forgets
sooner than was thought, for other routers use it too and answers take room. Memory is bounded over all replicas.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from routing.request import Request

BLOCK_TOKENS = 128
"""Tokens of a block of keys: what two prompts share beyond whole blocks is not seen."""
MOST_BLOCKS = 1 << 17
"""Remembered over all replicas: about 20 MB."""
LEAST_BLOCKS = 32
"""However often a replica surprises, so many of its blocks are remembered."""
SHRINK = 0.9
"""Part of a replica's memory that is kept after it had less than predicted."""


def prefix_keys(ids: Sequence[int], tenant: str, block_tokens: int = BLOCK_TOKENS) -> tuple[int, tuple[int, ...]]:
    """A key for the whole prompt, and one for each whole block before its last token.

    They are equal where tenant and prompt are the same up to that place, and only chance makes others equal.
    """
    key, keys = hash(tenant), []
    # The last token of a prompt is always read, hence no block that ends with it.
    for end in range(block_tokens, len(ids), block_tokens):
        key = hash((key, *ids[end - block_tokens : end]))
        keys.append(key)
    return hash((key, *ids[len(keys) * block_tokens :])), tuple(keys)


def body_keys(body: bytes, tenant: str, block_bytes: int = 4 * BLOCK_TOKENS) -> tuple[int, tuple[int, ...]]:
    """The same for a body that nobody here tokenizes: about as many bytes a block as a block's tokens have."""
    key, keys = hash((tenant, "body")), []
    for end in range(block_bytes, len(body), block_bytes):
        key = hash((key, body[end - block_bytes : end]))
        keys.append(key)
    return hash((key, body[len(keys) * block_bytes :])), tuple(keys)


@dataclass(slots=True)
class _Cache:
    """What one replica is thought to have, the longest unused first."""

    bit: int
    top_blocks: int
    """Its KV cache."""
    keeps_blocks: float
    """What it seems to keep of that for us."""
    blocks: OrderedDict[int, None] = field(default_factory=OrderedDict)


class Prefixes:
    """What the replicas of one model are thought to have cached."""

    def __init__(self, *, block_tokens: int = BLOCK_TOKENS, most_blocks: int = MOST_BLOCKS) -> None:
        self.block_tokens, self._most_blocks = block_tokens, most_blocks
        self._caches: dict[str, _Cache] = {}
        self._names: dict[int, str] = {}
        self._holders: dict[int, int] = {}
        """By key of a block: a bit for each replica that has it."""

    def __len__(self) -> int:
        """Blocks remembered, of all replicas."""
        return sum(len(cache.blocks) for cache in self._caches.values())

    def join(self, replica: str, kv_tokens: int) -> None:
        """A replica with a KV cache of so many tokens begins, with nothing in it."""
        bit = next(1 << place for place in range(len(self._names) + 1) if 1 << place not in self._names)
        top = max(LEAST_BLOCKS, kv_tokens // self.block_tokens)
        self._caches[replica] = _Cache(bit, top, top)
        self._names[bit] = replica

    def forget(self, replica: str) -> None:
        """A replica is gone."""
        if (cache := self._caches.pop(replica, None)) is not None:
            self._evict(cache, 0)
            del self._names[cache.bit]

    def cached_tokens(self, request: Request) -> dict[str, int]:
        """By replica, how much of the prompt's start it is thought to have; those that have nothing are left out."""
        holders, found = self._holders, {}
        alive, depth = -1, 0
        for key in request.blocks:
            here = holders.get(key, 0) & alive
            if here != alive:
                if depth:
                    self._note(found, alive & ~here, depth)
                if not here:
                    return found
                alive = here
            depth += 1
        if depth:
            self._note(found, alive, depth)
        return found

    def sent(self, request: Request, replica: str) -> None:
        """A request went to a replica, which will have all of its blocks."""
        if (cache := self._caches.get(replica)) is None:
            return
        blocks, holders, bit = cache.blocks, self._holders, cache.bit
        holds, touch = holders.get, blocks.move_to_end
        # From the end: of one prompt, the start is used last and evicted last.
        for key in reversed(request.blocks):
            held_by = holds(key, 0)
            if held_by & bit:
                touch(key)
            else:
                blocks[key] = None
                holders[key] = held_by | bit
        self._evict(cache, self._room(cache))

    def told(self, replica: str, *, predicted_tokens: int, cached_tokens: int) -> None:
        """A replica said how much of a prompt it had, where so much was predicted."""
        if (cache := self._caches.get(replica)) is None or not predicted_tokens:
            return
        if cached_tokens <= predicted_tokens - self.block_tokens:
            cache.keeps_blocks = max(LEAST_BLOCKS, SHRINK * min(cache.keeps_blocks, len(cache.blocks)))
            self._evict(cache, self._room(cache))
        else:
            cache.keeps_blocks = min(cache.top_blocks, cache.keeps_blocks + predicted_tokens / self.block_tokens)

    def _room(self, cache: _Cache) -> int:
        return min(int(cache.keeps_blocks), self._most_blocks // len(self._caches))

    def _note(self, found: dict[str, int], bits: int, depth: int) -> None:
        tokens = depth * self.block_tokens
        while bits:
            bit = bits & -bits
            found[self._names[bit]] = tokens
            bits ^= bit

    def _evict(self, cache: _Cache, most: int) -> None:
        holders, others = self._holders, ~cache.bit
        for _ in range(len(cache.blocks) - most):
            key, _ = cache.blocks.popitem(last=False)
            left = holders[key] & others
            if left:
                holders[key] = left
            else:
                del holders[key]
