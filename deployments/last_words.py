"""What did an engine say last, when it failed to start or to go on? The root cause, in one line."""

import os
import re

ERROR_LINE = re.compile(r"(?:^|\s)((?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Interrupt): .+)$")


class Said:
    """What this process and its children printed since it was made, when that goes to files (as under Ray)."""

    def __init__(self) -> None:
        self._starts: dict[str, int] = {}
        for descriptor in (1, 2):
            path = os.readlink(f"/proc/self/fd/{descriptor}")
            if os.path.isfile(path):
                self._starts[path] = os.path.getsize(path)

    def reason(self, error: Exception) -> str:
        """The root cause: the last error line printed by a child, else the exception itself."""
        causes = [line for path, start in self._starts.items() for line in _error_lines(path, start)]
        return causes[-1] if causes else one_line(error)


def one_line(error: Exception) -> str:
    """An exception's kind and words, on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:600]


def _error_lines(path: str, start: int) -> list[str]:
    with open(path, errors="replace") as file:
        file.seek(start)
        found = [match.group(1) for line in file if (match := ERROR_LINE.search(line.rstrip()))]
    return [line for line in found if "Engine core initialization failed" not in line]
