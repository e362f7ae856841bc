"""How does a command say that it can't go on? With lines for the user and an exit code."""

INTERRUPTED = 130
"""Exit code of what Ctrl-C ended."""


class Failure(Exception):
    """Ends the command: its text is printed as it is, without a traceback."""

    def __init__(self, text: str, *, exit_code: int = 1) -> None:
        super().__init__(text)
        self.exit_code = exit_code


def bad_input(text: str) -> Failure:
    """A Failure that the user's input caused."""
    return Failure(text, exit_code=2)
