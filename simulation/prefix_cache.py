"""Which prompts' beginnings does an engine still have in its cache?"""

from collections.abc import Sequence


class PrefixCache:
    """Blocks by the keys that a trace gives them, those not asked for longest go first.

    vLLM keeps what no sequence holds until its memory is needed; here as many blocks are kept as fit beside the
    sequences that run.
    """

    def __init__(self, block_tokens: int) -> None:
        self.block_tokens = block_tokens
        self._blocks: dict[int, None] = {}

    def found_tokens(self, prefix: Sequence[int]) -> int:
        """Of a prompt's beginning."""
        found = 0
        for block in prefix:
            if block not in self._blocks:
                break
            found += 1
        return found * self.block_tokens

    def keep(self, prefix: Sequence[int], *, room_tokens: int) -> None:
        """A prompt was read; what does not fit into `room_tokens` any more goes."""
        blocks = self._blocks
        for block in reversed(prefix):  # its beginning is asked for oftener: it goes last
            blocks.pop(block, None)
            blocks[block] = None
        for block in list(blocks)[: max(0, len(blocks) - room_tokens // self.block_tokens)]:
            del blocks[block]
