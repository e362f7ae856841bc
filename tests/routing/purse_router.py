"""What does a router do with its purse? As deployments/tolls.py, at once."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from routing import Cost, Ledger, Limit, Purse, Reserved, Spent


class Lost(Exception):
    """A question to the ledger, or its answer."""


@dataclass
class Router:
    """Of one tenant, `a`."""

    ledger: Ledger
    limits: list[Limit]
    name: str = "r"
    purse: Purse = field(init=False)
    open: list[tuple[float, dict[str, Reserved], int, float, float]] = field(default_factory=list)
    """When it ends, what is reserved, what it will have used, and when it came."""
    noted: Spent | None = None
    """What is known of it when it is killed."""

    def __post_init__(self) -> None:
        self.purse = Purse(self.limits)

    def come(self, cost: Cost, tokens: int, gpu_s: float, lasts_s: float, now_s: float) -> bool:
        """Whether a request was let in."""
        if self.purse.lacks(cost, now_s):
            with self._telling(now_s):
                lacking, had = self.purse.lacks(cost, now_s), dict(self.purse.had)
                self.ledger.settle(self.name, "a", self.limits, had, now_s, now_s)
                loan = self.ledger.borrow(self.name, "a", self.limits, lacking, self.purse.ahead(now_s), now_s)
                self.purse.fill(loan)
            if loan.short is not None:
                return False
        self.open.append((now_s + lasts_s, self.purse.reserve(cost, now_s), tokens, gpu_s, now_s))
        return True

    def end(self, now_s: float) -> None:
        """Requests that are over are settled."""
        over = [one for one in self.open if one[0] <= now_s]
        self.open = [one for one in self.open if one[0] > now_s]
        for _, reserved, tokens, gpu_s, _ in over:
            paid = {"requests": 1.0, "tokens": float(tokens), "gpu_s": gpu_s}
            for limit in self.limits:
                reserved[limit.name].used += paid[limit.unit]
            self.purse.settle(reserved, now_s)
            self.note(now_s)

    def give_back(self, now_s: float) -> None:
        with self._telling(now_s):
            self.ledger.settle(self.name, "a", self.limits, dict(self.purse.had), now_s, now_s)

    def note(self, now_s: float) -> None:
        self.noted = Spent(now_s, self.purse.spent(now_s))

    @contextmanager
    def _telling(self, now_s: float) -> Iterator[None]:
        back = self.purse.give_back(now_s)
        self.note(now_s)
        try:
            yield
        except Lost:
            self.purse.lose(back)
            raise
        self.note(now_s)


def cost(likely: int, most: int | None = None, gpu_s: float = 0.0) -> Cost:
    return Cost(likely_tokens=likely, most_tokens=likely if most is None else most, most_gpu_s=gpu_s)
