"""What is known of one batch?"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from deployments.batches.state import Status

WINDOW = "24h"
"""The one `completion_window` that there is, as with OpenAI."""
WINDOW_S = 24 * 3600.0
ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses")


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """What came of its lines so far."""

    total: int = 0
    completed: int = 0
    failed: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    lines_per_s: float | None = None
    """Lately."""

    @property
    def left(self) -> int:
        return self.total - self.completed - self.failed

    def with_line(self, *, answered: bool, tokens: tuple[int, int, int]) -> "Progress":
        """One more line has ended. `tokens`: of its input, of these the cached ones, and of its output."""
        return replace(
            self,
            completed=self.completed + answered,
            failed=self.failed + (not answered),
            input_tokens=self.input_tokens + tokens[0],
            cached_tokens=self.cached_tokens + tokens[1],
            output_tokens=self.output_tokens + tokens[2],
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Times are seconds since 1970."""

    id: str
    tenant: str
    key: str
    """Of which of its tenant's keys, by its id."""
    models: tuple[str, ...] | None
    """That the key opens. None: all."""
    endpoint: str
    input_file: str
    about: Mapping[str, str] | None
    """Its owner's `metadata`."""
    files_kept_s: float | None
    """Seconds for which its files are kept. None: until somebody deletes them."""
    status: Status = Status.VALIDATING
    created_s: float
    expires_s: float
    in_progress_s: float | None = None
    cancelling_s: float | None = None
    finalizing_s: float | None = None
    ended_s: float | None = None
    model: str | None = None
    """If all its lines name the same."""
    errors: tuple[dict[str, Any], ...] = ()
    progress: Progress = Progress()
    output_file: str | None = None
    error_file: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one line."""

    line: int
    """Its number in the input file."""
    answered: bool
    """It goes to the output file; else to the error file."""
    body: bytes
    """What stands there."""
