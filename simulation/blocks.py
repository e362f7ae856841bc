"""Which blocks of an engine's cache are free, and what of a sequence do the others hold?"""

from simulation.decodes import Sequence
from simulation.prefix_cache import PrefixCache


class Blocks:
    """The cache of one engine. Each sequence takes blocks of its own, but those of `prefixes` that others hold too."""

    def __init__(self, count: int, block_tokens: int, prefixes: PrefixCache | None) -> None:
        """Raises ValueError where there is no block, or one of `prefixes` is not so many whole ones."""
        if count < 1:
            raise ValueError(f"kv_blocks must be at least 1, got {count}")
        if prefixes is not None and prefixes.block_tokens % block_tokens:
            whole = f"{block_tokens}-token blocks"
            raise ValueError(f"a block of prefixes must be whole {whole}, got {prefixes.block_tokens} tokens")
        self.count = self.free = count
        self._tokens = block_tokens
        self._prefixes = prefixes
        self._taken = 0  # since it began

    def of(self, tokens: int) -> int:
        """How many so many tokens fill."""
        return -(-tokens // self._tokens)

    def take(self, blocks: int) -> None:
        self.free -= blocks
        self._taken += blocks
        if self._prefixes is not None:
            self._prefixes.shrink(self.free * self._tokens // self._prefixes.block_tokens)

    def release(self, sequence: Sequence) -> None:
        """It needs its blocks no more."""
        self.free += sequence.blocks
        if self._prefixes is not None and sequence.held:
            cache, held = self._prefixes, sequence.held
            self.free -= self.of((held - cache.release(sequence.prefix[:held])) * cache.block_tokens)
        sequence.blocks = sequence.held = 0

    def give_up(self, sequence: Sequence) -> None:
        """The same, but what its blocks held stays there until they are overwritten.

        Those that have been free for longest go first, and of its own the last (vllm/v1/core/block_pool.py; prefix
        caching is vLLM's default).
        """
        sequence.safe_blocks = self._taken + self.free
        self.release(sequence)

    def kept_tokens(self, sequence: Sequence) -> int:
        """Of those that it gave up: whole blocks, and not all of them, as its next token must be computed."""
        blocks = self.of(sequence.cached_tokens) - max(0, self._taken - sequence.safe_blocks)
        tokens = min(sequence.cached_tokens, sequence.known_tokens - 1, blocks * self._tokens)
        return max(0, tokens // self._tokens * self._tokens)

    def cached_tokens(self, prefix: tuple[int, ...]) -> int:
        """Of a prompt that begins so, what is there now."""
        return 0 if self._prefixes is None else self._prefixes.found(prefix) * self._prefixes.block_tokens

    def find(self, sequence: Sequence) -> int:
        """Tokens of its prompt's beginning that are there; it holds them from now on."""
        cache = self._prefixes
        if cache is None or not sequence.prefix:
            return 0
        sequence.held = cache.found(sequence.prefix[: self._most_found(sequence)])
        tokens = sequence.held * cache.block_tokens
        sequence.blocks = self.of(tokens)
        self.take(self.of(cache.hold(sequence.prefix[: sequence.held]) * cache.block_tokens))
        return tokens

    def lent(self, sequence: Sequence) -> int:
        """Blocks that it need not take, as others hold them."""
        cache = self._prefixes
        if cache is None or not sequence.prefix or sequence.preemptions:
            return 0
        return self.of(cache.lent(sequence.prefix[: self._most_found(sequence)]) * cache.block_tokens)

    def share(self, sequence: Sequence) -> None:
        """Its prompt was read: whoever begins alike finds it. Of what others have read meanwhile it holds theirs."""
        cache = self._prefixes
        if cache is not None and sequence.prefix:
            whole = sequence.prefix[: sequence.prompt_tokens // cache.block_tokens]
            more = whole[sequence.held :]
            self.free += self.of((len(more) - cache.hold(more)) * cache.block_tokens)
            sequence.held = len(whole)

    def _most_found(self, sequence: Sequence) -> int:
        """Blocks of its prefix that may be found: its last token is computed in any case."""
        return 0 if self._prefixes is None else (sequence.prompt_tokens - 1) // self._prefixes.block_tokens
