"""Which prompts' beginnings does an engine have in its cache, and who holds them?"""

from collections.abc import Iterable, Sequence


class PrefixCache:
    """Blocks by the keys that a trace gives them.

    As vLLM's: sequences that begin alike hold the same blocks, each of which takes memory once. What nobody holds is
    kept until its memory is needed; what was given up longest ago goes first, and of a prompt its end.
    """

    def __init__(self, block_tokens: int) -> None:
        self.block_tokens = block_tokens
        self._held: dict[int, int] = {}
        """By how many sequences."""
        self._left: dict[int, None] = {}

    def found(self, prefix: Sequence[int]) -> int:
        """Blocks of a prompt's beginning that are there."""
        held, left, count = self._held, self._left, 0
        for block in prefix:
            if block not in held and block not in left:
                break
            count += 1
        return count

    def lent(self, prefix: Sequence[int]) -> int:
        """Blocks of a prompt's beginning that some sequence holds."""
        held, count = self._held, 0
        for block in prefix:
            if block not in held:
                break
            count += 1
        return count

    def hold(self, blocks: Iterable[int]) -> int:
        """One more sequence holds these; how many of them nobody held."""
        held, left, first = self._held, self._left, 0
        for block in blocks:
            count = held.get(block, 0)
            held[block] = count + 1
            if not count:
                left.pop(block, None)
                first += 1
        return first

    def release(self, blocks: Sequence[int]) -> int:
        """One sequence fewer holds these; how many of them nobody holds any more."""
        held, left, last = self._held, self._left, 0
        for block in reversed(blocks):  # a prompt's beginning is asked for oftener: it goes last
            if held[block] == 1:
                del held[block]
                left[block] = None
                last += 1
            else:
                held[block] -= 1
        return last

    def shrink(self, most: int) -> None:
        """No more than so many blocks that nobody holds find room."""
        left = self._left
        while len(left) > most:
            del left[next(iter(left))]
