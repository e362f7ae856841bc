"""Do the limits of a tenant and of a key let a request in, and what is charged for it in the end?

A router decides by what the fleet's ledger has lent it; it asks the ledger only when that is used up.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from math import ceil, isinf
from time import time
from typing import Protocol, TypeVar

import routing
from deployments.openai_wire import ApiError
from deployments.said_once import SaidOnce
from deployments.sender import Sender
from deployments.tenant import Tenant
from deployments.usage_line import Line

LOOK_S = 1.0
"""Seconds between two times that what is unused is given back."""
ANSWER_S = 2.0
"""Patience with the ledger."""
DRY_S = 0.1
"""For so long after the ledger refused, the same is refused without asking it again."""
HELD_S = 5
"""Told where a budget is held by requests that run: when they end is not known."""
MEMORY = 0.02
"""Weight of the newest answer in the mean length."""
LONGEST_TOKENS = 1 << 20
"""An answer, where neither its request nor an engine says how long it may be."""
FIRST_ANSWER_TOKENS = 256
"""Taken for that before there was one."""
FIRST_TOKEN_GPU_S = 0.1
"""A token is taken to cost at most so much until the first costs are known."""
FADES = 0.999
"""The dearest token seen counts a little less with each request after it."""


T = TypeVar("T")
Lent = tuple[dict[str, float], routing.Loan]
"""What the ledger was asked for, and what it said."""


class Spendings(Protocol):
    """Where it is kept what accounts spent of budgets, whatever becomes of this process."""

    def add(self, owner: str, spent: routing.Spent) -> None: ...


class Ledger(Protocol):
    """Of the fleet. Raises whatever it raises when it can't be reached."""

    async def borrow(
        self,
        tenant: str,
        limits: Sequence[routing.Limit],
        had: Mapping[str, float],
        needs: Mapping[str, float],
        ahead: Mapping[str, float],
    ) -> routing.Loan: ...
    async def settle(self, tenant: str, limits: Sequence[routing.Limit], had: Mapping[str, float]) -> None: ...


@dataclass(eq=False, slots=True)
class Account:
    """Of a tenant, or of a key with limits of its own, as one router keeps it."""

    owner: str
    """In the ledger, and in what is told."""
    purse: routing.Purse
    told: dict[str, float] | None = field(init=False)
    """Of what was had, what the ledger knows for sure; None: it may have heard the last question or not."""
    asking: asyncio.Lock = field(default_factory=asyncio.Lock)
    question: "asyncio.Task[Lent] | asyncio.Task[None] | None" = None
    """To the ledger, the last one: one at a time, or it would take back what is on its way here. It may be open while
    who asked waits no more.
    """
    dry: tuple[float, routing.Loan, dict[str, float]] | None = None
    """Until when the ledger is not asked again, what it said, and to what."""

    def __post_init__(self) -> None:
        self.told = dict(self.purse.had)


class Toll:
    """Of one request. As a context, what was reserved and not used by its end is free again."""

    def __init__(self, tolls: "Tolls", reserved: Sequence[tuple[Account, dict[str, routing.Reserved]]]) -> None:
        self._tolls, self._reserved = tolls, reserved

    def pay(self, line: Line) -> None:
        """So much more was used."""
        paid = {"requests": line.requests, "tokens": line.prompt_tokens + line.output_tokens, "gpu_s": line.gpu_s}
        for account, reserved in self._reserved:
            for limit in account.purse.limits:
                reserved[limit.name].used += paid[limit.unit]
        self._settle()
        self._tolls.learn(line)

    def _settle(self) -> None:
        for account, reserved in self._reserved:
            account.purse.settle(reserved, time())
            self._tolls.note(account)

    def __enter__(self) -> "Toll":
        return self

    def __exit__(self, *_: object) -> None:
        self._settle()


class Tolls:
    """Of one router. `spendings`: None where a ledger does not outlive it."""

    def __init__(
        self,
        tenants: Sequence[Tenant],
        ledger: Ledger,
        log: Callable[[str], None],
        spendings: Spendings | None = None,
    ) -> None:
        self._ledger, self._log, self._spendings = ledger, log, spendings
        self._said = SaidOnce(log)
        self._accounts = {
            tenant.name: Account(tenant.name, routing.Purse(tenant.limits)) for tenant in tenants if tenant.limits
        }
        """By owner. Those of keys come with their first requests."""
        self._answer_tokens, self._token_gpu_s = float(FIRST_ANSWER_TOKENS), FIRST_TOKEN_GPU_S
        self._learnt = False

    async def admit(
        self, by: Sender, *, prompt_tokens: int, answers: int, max_tokens: int | None, room_tokens: int | None
    ) -> AbstractContextManager[Toll | None]:
        """Nothing where neither tenant nor key has limits; else both must let it in. `max_tokens`: of each answer,
        where that is said; `room_tokens`: that its context has. Raises ApiError(429), or 503 while the ledger can't be
        reached.
        """
        accounts = self._of(by)
        if not accounts:
            return nullcontext()
        cost = self._cost(prompt_tokens, answers, max_tokens, room_tokens)
        # Again, as others may take of the one while the other is filled.
        while lacking := [account for account in accounts if account.purse.lacks(cost, time())]:
            for account in lacking:
                await self._fill(account, cost)
        return Toll(self, [(account, account.purse.reserve(cost, time())) for account in accounts])

    def learn(self, line: Line) -> None:
        """What a request cost."""
        if line.requests:
            self._answer_tokens += MEMORY * (line.output_tokens - self._answer_tokens)
        tokens = line.prompt_tokens - line.cached_tokens + line.output_tokens
        if line.gpu_s > 0 and tokens > 0:
            before = self._token_gpu_s * FADES if self._learnt else 0.0
            self._token_gpu_s, self._learnt = max(before, line.gpu_s / tokens), True

    def note(self, account: Account) -> None:
        """Keeps what it has spent of budgets."""
        now_s = time()
        if self._spendings is not None and (spent := account.purse.spent(now_s)):
            self._spendings.add(account.owner, routing.Spent(now_s, spent))

    async def close(self) -> None:
        """Nothing is asked any more: waits a little for what is on its way from the ledger."""
        if questions := [account.question for account in self._accounts.values() if account.question is not None]:
            await asyncio.wait(questions, timeout=ANSWER_S)

    async def go_on(self) -> None:
        """Gives back what is unused until it is cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            for account in list(self._accounts.values()):
                await self._give_back(account)

    def _of(self, by: Sender) -> list[Account]:
        """Of its key, which is refused more often, and of its tenant."""
        if by.limits and by.account not in self._accounts:
            self._accounts[by.account] = Account(by.account, routing.Purse(by.limits))
        owners = (by.account if by.limits else None, by.tenant)
        return [self._accounts[owner] for owner in owners if owner in self._accounts]

    def _cost(self, prompt_tokens: int, answers: int, max_tokens: int | None, room_tokens: int | None) -> routing.Cost:
        most = min(size for size in (max_tokens, room_tokens, LONGEST_TOKENS) if size is not None)
        likely = min(most, ceil(self._answer_tokens)) if max_tokens is None else most
        most_tokens = prompt_tokens + answers * most
        return routing.Cost(
            likely_tokens=prompt_tokens + answers * likely,
            most_tokens=most_tokens,
            most_gpu_s=most_tokens * self._token_gpu_s,
        )

    async def _fill(self, account: Account, cost: routing.Cost) -> None:
        """By what the cost lacks. Raises ApiError."""
        async with account.asking:
            # Others may take of what is here meanwhile.
            while account.purse.lacks(cost, time()):
                await self._borrow(account, cost)

    async def _borrow(self, account: Account, cost: routing.Cost) -> None:
        """Fills the purse by what the cost lacks, or by what was asked for one who waits no more. Raises ApiError."""
        if account.question is not None and not account.question.done():
            await self._answer(account.question)
            return
        purse = account.purse
        lacking, now_s = purse.lacks(cost, time()), time()
        if (loan := _still_dry(account, lacking, now_s)) is None:
            question = account.question = asyncio.create_task(self._lend(account, cost))
            lacking, loan = await self._answer(question)
        if loan.short is not None:
            account.dry = (now_s + min(DRY_S, loan.wait_s), loan, lacking)
            limit = next(limit for limit in purse.limits if limit.name == loan.short)
            raise _refusal(account.owner, limit, loan, needed=lacking[loan.short], held=purse.held(limit.name))

    async def _lend(self, account: Account, cost: routing.Cost) -> Lent:
        """It is in the purse then."""
        purse = account.purse
        with self._telling(account, purse.give_back(time())):
            lacking, ahead = purse.lacks(cost, time()), purse.ahead(time())
            loan = await self._ledger.borrow(account.owner, purse.limits, dict(purse.had), lacking, ahead)
            purse.fill(loan)
        return lacking, loan

    async def _answer(self, question: asyncio.Task[T]) -> T:
        """Goes on being waited for by those that come, if it is late."""
        try:
            return await asyncio.wait_for(asyncio.shield(question), ANSWER_S)
        except Exception as error:
            self._log(f"the ledger of limits can't be reached: {type(error).__name__}: {error}")
            message = "This server can't tell at the moment what is left of your limits."
            raise ApiError(503, message, kind="server_error", code="limits_unknown", retry_after_s=2) from None

    async def _give_back(self, account: Account) -> None:
        """Until the ledger has heard it: again with the next look."""
        if account.question is not None and not account.question.done():
            return
        back = account.purse.give_back(time())
        if account.told != account.purse.had:
            account.question = asyncio.create_task(self._settle(account, back))
            await asyncio.wait([account.question], timeout=ANSWER_S)

    async def _settle(self, account: Account, back: Mapping[str, float]) -> None:
        try:
            with self._telling(account, back):
                await self._ledger.settle(account.owner, account.purse.limits, dict(account.purse.had))
            self._said.works()
        except Exception as error:
            self._said.fails(f"what is left of limits waits for the ledger: {type(error).__name__}: {error}")

    @contextmanager
    def _telling(self, account: Account, back: Mapping[str, float]) -> Iterator[None]:
        """The ledger, what it has had; `back` of that was given back of minutes just now. What is spent is noted before
        and after, or else what ended with its period might be taken for unspent of the next.
        """
        account.told = None
        self.note(account)
        try:
            yield
        except Exception:
            account.purse.lose(back)
            raise
        account.told = dict(account.purse.had)
        self.note(account)


def _still_dry(account: Account, lacking: Mapping[str, float], now_s: float) -> routing.Loan | None:
    """What the ledger said just now to a question that asked no more."""
    if account.dry is None:
        return None
    until_s, loan, asked = account.dry
    if now_s >= until_s or loan.short is None:
        return None
    return loan if lacking.get(loan.short, 0.0) >= asked[loan.short] else None


def _refusal(owner: str, limit: routing.Limit, loan: routing.Loan, *, needed: float, held: float) -> ApiError:
    """`held`: by requests that run here, of which most give some back when they end."""
    unit = {"requests": "requests", "tokens": "tokens", "gpu_s": "GPU-seconds"}[limit.unit]
    left = f"{loan.left:g} of {limit.amount:g} {unit} are left"
    retry_s = None if isinf(loan.wait_s) else max(1, ceil(loan.wait_s))
    if limit.period is None:
        hint = "It is above the limit by itself." if retry_s is None else f"Try again in {retry_s} s."
        message = f"Rate limit of {owner}: {left} in this minute, this request may take {needed:g} more. {hint}"
        return ApiError(429, message, kind=limit.unit, code="rate_limit_exceeded", retry_after_s=retry_s)
    whole = "in all" if limit.period is routing.Period.TOTAL else f"this {limit.period}"
    message = f"Budget of {owner}: {left} {whole}, this request may take {needed:g} more"
    if loan.left + held >= needed:
        message += f"; requests that run hold {held:g}, of which they give back what they don't use."
        return ApiError(429, message, kind=limit.unit, code="rate_limit_exceeded", retry_after_s=HELD_S)
    message += ": its prompt, and max_tokens or the rest of the context."
    return ApiError(429, message, kind="insufficient_quota", code="insufficient_quota", retry_after_s=retry_s)
