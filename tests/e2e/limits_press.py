"""How do clients press on a fleet whose limits they have, and how much of it was let in within a minute?"""

import asyncio
import random
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import httpx

MINUTE_S = 60.0
REST_S = 0.2
"""After a refusal."""
LATE_S = 0.2
"""What was lent in a minute counts for a slot longer, and a refusal may be as old as a router goes without asking."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: between its begin and its end it was let in or refused. All of a presser take the same tokens."""

    begin_s: float
    end_s: float
    status: int
    """0: the connection broke."""
    tokens: int = 0
    error: str = ""


@dataclass
class Presser:
    """Clients that share a key. Each asks again as soon as it was answered, on a connection of its own."""

    url: str
    key: str
    clients: int
    answer_tokens: int
    paced: bool = False
    """Rests between answers as well, until it is told to `hurry`."""
    asked: list[Asked] = field(default_factory=list)

    async def go_on(self, http: httpx.AsyncClient) -> None:
        """Until it is cancelled."""
        await asyncio.gather(*(self._one_after_the_other(http) for _ in range(self.clients)))

    def hurry(self) -> None:
        self.paced = False

    def answered(self) -> list[Asked]:
        return [one for one in self.asked if one.status == 200]

    async def _one_after_the_other(self, http: httpx.AsyncClient) -> None:
        while True:
            self.asked.append(one := await self._ask(http))
            if one.status != 200:
                await asyncio.sleep(REST_S)
            elif self.paced:
                await asyncio.sleep(random.uniform(2.0, 6.0))

    async def _ask(self, http: httpx.AsyncClient) -> Asked:
        body: dict[str, Any] = {"model": "tiny", "prompt": "A class is", "max_tokens": self.answer_tokens}
        headers = {"authorization": f"Bearer {self.key}", "connection": "close"}
        begin_s = monotonic()
        try:
            answer = await http.post(f"{self.url}/v1/completions", json=body | {"ignore_eos": True}, headers=headers)
        except httpx.TransportError as error:
            return Asked(begin_s, monotonic(), 0, error=repr(error))
        if answer.status_code != 200:
            return Asked(begin_s, monotonic(), answer.status_code, error=answer.text)
        return Asked(begin_s, monotonic(), 200, answer.json()["usage"]["total_tokens"])


def most_within_a_minute(asked: Iterable[Asked]) -> Counter[str]:
    """Of requests and of tokens, the most that was certainly let in within one 60 s: begun and ended in them."""
    let_in = sorted((one for one in asked if one.status == 200), key=lambda one: one.begin_s)
    most: Counter[str] = Counter()
    for place, first in enumerate(let_in):
        inside = [one.tokens for one in let_in[place:] if one.end_s <= first.begin_s + MINUTE_S]
        most |= Counter(requests=len(inside), tokens=sum(inside))
    return most


def least_before_a_refusal(asked: Iterable[Asked]) -> Counter[str]:
    """The least that may have come in within a minute at whose end somebody was refused; what broke may have been."""
    asked = list(asked)
    came = [one for one in asked if one.status in (0, 200)]
    tokens = max(one.tokens for one in came)
    begins, ends = sorted(one.begin_s for one in came), sorted(one.end_s for one in came)
    refused = (one for one in asked if one.status == 429)
    least = min(bisect_right(begins, one.end_s) - bisect_left(ends, one.begin_s - MINUTE_S - LATE_S) for one in refused)
    return Counter(requests=least, tokens=least * tokens)
