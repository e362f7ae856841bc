"""In which states can a batch be, and which follows which? OpenAI's."""

from enum import StrEnum


class Status(StrEnum):
    """As batches tell it."""

    VALIDATING = "validating"
    FAILED = "failed"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"


FOLLOWS = {
    Status.VALIDATING: {Status.IN_PROGRESS, Status.FAILED, Status.CANCELLING},
    Status.IN_PROGRESS: {Status.FINALIZING, Status.FAILED, Status.CANCELLING, Status.EXPIRED},
    Status.FINALIZING: {Status.COMPLETED, Status.FAILED},
    Status.CANCELLING: {Status.CANCELLED},
}
"""What has no successor has ended. A batch fails after it began only if its input file is lost."""
OPEN = frozenset(FOLLOWS)
"""Some router has to run it."""


def may_follow(status: Status, successor: Status) -> bool:
    """Whether a batch may go from one to the other."""
    return successor in FOLLOWS.get(status, ())


def before(status: Status) -> frozenset[Status]:
    """From which it may come."""
    return frozenset(one for one in OPEN if may_follow(one, status))


def ending(status: Status, *, left: int, now_s: float, expires_s: float) -> Status | None:
    """How a batch ends of which so many lines are left; None: it goes on. Who asked to cancel it gets that."""
    if status is Status.CANCELLING:
        return Status.CANCELLED
    if left == 0 or status is Status.FINALIZING:
        return Status.COMPLETED
    return Status.EXPIRED if now_s >= expires_s else None
