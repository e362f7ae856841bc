"""Who may come in, who is next, and which replica? Pure: stdlib only; time is an argument."""

from routing.admit import Refusal, admit
from routing.batch import batch
from routing.choose import choose
from routing.dispatch import dispatch
from routing.replica import Replica
from routing.request import Request

__all__ = ["Refusal", "Replica", "Request", "admit", "batch", "choose", "dispatch"]
