"""Who may come in, who is next, and which replica? Pure: stdlib only; time is an argument."""

from routing.admit import Refusal, admit
from routing.batch import batch
from routing.breaker import Health, failed, lost, rested, succeeded
from routing.choose import choose
from routing.dispatch import dispatch
from routing.drain import Departure, drain_tokens_per_s
from routing.replica import Replica
from routing.request import Request

__all__ = [
    "Departure",
    "Health",
    "Refusal",
    "Replica",
    "Request",
    "admit",
    "batch",
    "choose",
    "dispatch",
    "drain_tokens_per_s",
    "failed",
    "lost",
    "rested",
    "succeeded",
]
