"""What does routing know of an engine replica?"""

from dataclasses import dataclass

DECODE_TOKENS = 2
"""What a running request adds to the step that reads a prompt, as prompt tokens: its own token costs the same
arithmetic as one of a prompt, and reading the keys and values of its context about as much again."""

LOAD_TOKENS = 20
"""What it counts in a choice: it stays, and slows all that comes, long after the prompts that wait now are read. From 2
to 12 conversations crowd where for a moment nothing was read; from 20 on nothing gets better (docs/routing.md)."""

UNKNOWN_TOKEN_S = 1e-4
"""Taken for all replicas while none has measured any."""


@dataclass(slots=True, kw_only=True, eq=False)
class Replica:
    """One engine replica as its last frame described it, with what was sent since then counted in.

    The one value here that changes: a turn with 64 replicas has no time to make each of them anew.
    """

    id: str
    slots: int = 0
    """Credit: requests that may be sent now."""
    tokens: int = 0
    """Credit: prompt tokens that may be sent now, without those that its cache holds."""
    work_tokens: int = 0
    """What stands before a prompt that comes now, in prompt tokens: those that it has and has not read, and
    DECODE_TOKENS for each request that it has."""
    load_tokens: int = 0
    """The same with LOAD_TOKENS for each of them."""
    running: int = 0
    """Requests that it has."""
    most_running: int = 1
    """Requests that it runs at once, at most."""
    token_s: float = UNKNOWN_TOKEN_S
    """Seconds for a prompt token, from `token_seconds`."""
    step_s: float = 0.0
    """Seconds of its mean step that reads prompts; 0 while none was measured."""
    draining: bool = False
    """It finishes what it has and takes nothing new."""

    @property
    def begun_s(self) -> float:
        """Seconds of the steps before one that can read what comes now: one runs, the next is planned already."""
        return 2 * self.step_s if self.running else 0.0

    @property
    def has_credit(self) -> bool:
        """Whether a request may be sent there now."""
        return self.slots > 0 and self.tokens > 0 and not self.draining

    def hear(self, *, slots: int, tokens: int, queued_tokens: int, running: int) -> None:
        """A frame came: what it grants, the prompt tokens that the replica has to read, and the requests it has."""
        self.slots, self.tokens, self.running = slots, tokens, running
        self.work_tokens = queued_tokens + DECODE_TOKENS * running
        self.load_tokens = queued_tokens + LOAD_TOKENS * running

    def send(self, tokens: int) -> None:
        """Counts in a request that was just sent there, of which it must read so many tokens."""
        self.slots -= 1
        self.tokens -= tokens
        self.running += 1
        self.work_tokens += tokens + DECODE_TOKENS
        self.load_tokens += tokens + LOAD_TOKENS
