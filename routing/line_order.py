"""In which order are the lines of a batch asked?

Those whose prompts begin alike stand together, so that a prefix is in a replica's cache when the next one needs it.
Among those that share as much, the longest come first: what is short fills the gaps at the end.
"""

from collections import Counter
from collections.abc import Sequence


def line_order(prompts: Sequence[tuple[Sequence[int], int]]) -> list[int]:
    """Places of the prompts in the order in which to ask. Each: the keys of its blocks, and its length.

    For any beginning that prompts share in whole blocks, those that have it follow each other.
    """
    # Within one model and tenant a key stands for all blocks up to its own, so that each counts a whole beginning.
    shared = Counter(key for keys, _ in prompts for key in keys)

    def place(index: int) -> tuple[list[int], int, int]:
        keys, length = prompts[index]
        # What no other prompt has orders nothing: there the length decides.
        return [key for key in keys if shared[key] > 1], -length, index

    return sorted(range(len(prompts)), key=place)
