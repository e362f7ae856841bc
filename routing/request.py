"""What does routing know of a request?"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One prompt that waits for a replica."""

    id: int
    """Unique within its router."""
    prompt_tokens: int
    max_output_tokens: int
    arrived_s: float
    prefix: int
    """Hash of the first block of the prompt: requests that share it can share its KV cache. 0: none."""
