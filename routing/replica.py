"""What does routing know of an engine replica?"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """One engine replica as its last frame described it, with what was sent since then counted in."""

    id: str
    slots: int
    """Credit: requests that may be sent now."""
    tokens: int
    """Credit: prompt tokens that may be sent now."""
    queued_tokens: int
    """Prompt tokens sent there whose first output token has not come yet."""
    running: int
    """Requests that decode there."""
    prefill_tokens_per_s: float
    """Measured; 0 while unknown."""
    draining: bool
    """It finishes what it has and takes nothing new."""

    @property
    def has_credit(self) -> bool:
        """Whether a request may be sent there now."""
        return not self.draining and self.slots > 0 and self.tokens > 0
