"""How is a failure that comes again and again said once?"""

from collections.abc import Callable


class SaidOnce:
    """What was last said of one thing that can fail."""

    def __init__(self, log: Callable[[str], None]) -> None:
        self._log, self._said = log, ""

    def fails(self, words: str) -> None:
        """Says it, unless the last failure was in the same words and nothing worked since."""
        if words != self._said:
            self._log(words)
            self._said = words

    def works(self) -> None:
        """The next failure is news."""
        self._said = ""
