"""Who may come in, who is next, and which replica? Pure: stdlib only; time and randomness are arguments."""

from routing.admit import Refusal, admit, wait_s
from routing.allowance import Budget, Minute, Period, counts
from routing.batch import Placement, Turn, batch
from routing.breaker import Health, failed, lost, rested, succeeded
from routing.choose import Choice, choose
from routing.counters import Counters, Floors
from routing.drain import Drain
from routing.gate import Gate, TierGates, retry_after_s
from routing.grant import Credit, Grants, Head, credit_requests, credit_tokens, room_tokens
from routing.ledger import Ledger, Limit, Loan, Spent
from routing.line_order import line_order
from routing.pace import Measured, token_seconds
from routing.prefixes import BLOCK_TOKENS, Prefixes, body_keys, prefix_keys
from routing.purse import Cost, Purse, Reserved
from routing.queue import Queue
from routing.rate import Rate
from routing.reading_order import reading_order
from routing.replica import UNKNOWN_TOKEN_S, Replica
from routing.request import Request, Tier
from routing.variant import Ladder, Prefer, Variant, Why, Wish

__all__ = [
    "BLOCK_TOKENS",
    "UNKNOWN_TOKEN_S",
    "Budget",
    "Choice",
    "Cost",
    "Counters",
    "Credit",
    "Drain",
    "Floors",
    "Gate",
    "Grants",
    "Head",
    "Health",
    "Ladder",
    "Ledger",
    "Limit",
    "Loan",
    "Measured",
    "Minute",
    "Period",
    "Placement",
    "Prefer",
    "Prefixes",
    "Purse",
    "Queue",
    "Rate",
    "Refusal",
    "Replica",
    "Request",
    "Reserved",
    "Spent",
    "Tier",
    "TierGates",
    "Turn",
    "Variant",
    "Why",
    "Wish",
    "admit",
    "batch",
    "body_keys",
    "choose",
    "counts",
    "credit_requests",
    "credit_tokens",
    "failed",
    "line_order",
    "lost",
    "prefix_keys",
    "reading_order",
    "rested",
    "retry_after_s",
    "room_tokens",
    "succeeded",
    "token_seconds",
    "wait_s",
]
