"""What does the reader of one request hold, and what has come for it so far?"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from time import monotonic

import msgspec

import routing
from deployments.bill import Bill, Used
from deployments.continuation import SoFar, go_on, may_continue
from deployments.frames import Call, Delta, Failure, Part, Submit
from deployments.openai_wire import ApiError


@dataclass(eq=False, slots=True)
class Ticket:
    """One request on its way. Its reader awaits `news`, then takes."""

    value: routing.Request
    order: Submit | Call
    """What an engine is told."""
    news: asyncio.Event
    """Set when something came, it failed, or the reader left; tickets of one reader may share it."""
    open_choices: int
    replica: str | None = None
    """The replica that runs it."""
    sent_as: int = 0
    """Its number among all that were sent there."""
    losses: int = 0
    """Replicas that were lost after they had it. Those that were gone before it reached them don't count."""
    taken: bool = False
    """Something was given to the reader: from now on a lost replica can't be hidden."""
    pending: dict[int, Delta] = field(default_factory=dict)
    part: Part | None = None
    """What has come of a call's answer."""
    untold_bytes: int = 0
    """What the reader took of a call's answer and the engine was not told yet."""
    failure: Failure | None = None
    heard_s: float | None = None
    """When an engine last said something of it, by the monotonic clock."""
    gone: bool = False
    """The reader left."""
    predicted_tokens: int = 0
    """Of the prompt, what its replica was thought to have cached; 0 once that was compared with the truth."""
    estimated_tokens: int = 0
    """Of a call's prompt, what its tenant was charged for and the engine has not told yet."""
    charged_tokens: int = 0
    """What its tenant was charged for it, but for what was given back."""
    used: Used = field(default_factory=Used)
    bill: Bill | None = None
    """Of the HTTP request that it belongs to."""
    so_far: SoFar | None = field(init=False)
    """What has come; None: another replica can't go on with it."""

    def __post_init__(self) -> None:
        self.so_far = SoFar() if isinstance(self.order, Submit) and may_continue(self.order) else None

    @property
    def attempt(self) -> int:
        return self.order.attempt

    @property
    def unread(self) -> bool:
        """Something is there to take, or more may come."""
        return bool(self.pending) or self.part is not None or self.open_choices > 0

    def take(self) -> Iterable[Delta]:
        """What has come since the last call, merged by choice. Raises ApiError when the run failed."""
        if self.pending:
            self._give()
            deltas, self.pending = self.pending.values(), {}
            return deltas
        if self.failure is not None:
            raise _as_api_error(self.failure)
        return ()

    def take_part(self) -> Part | None:
        """What has come of a call's answer since the last time. Raises ApiError when the call failed."""
        if self.part is not None:
            self._give()
            part, self.part = self.part, None
            return part
        if self.failure is not None:
            raise _as_api_error(self.failure)
        return None

    def whole(self) -> list[Delta]:
        """Every choice in order, after the last one ended. Raises ApiError when the run failed."""
        if self.failure is not None:
            raise _as_api_error(self.failure)
        return [self.pending[index] for index in sorted(self.pending)]

    def put(self, delta: Delta) -> bool:
        """Takes a delta in; True when no choice is left open."""
        self.open_choices -= delta.finish is not None
        self.heard_s = monotonic()
        if not self.used.prompt_tokens:
            self._begun(delta)
        if self.so_far is not None:
            self.so_far.add(delta)
        if (waiting := self.pending.get(delta.index)) is not None:
            waiting.merge(delta)
        else:
            self.pending[delta.index] = delta
        self.news.set()
        return self.open_choices <= 0

    def put_part(self, part: Part) -> bool:
        """Takes a part of a call's answer in; True when it was the last."""
        self.open_choices -= not part.more
        if self.part is not None:
            self.part.merge(part)
        else:
            self.part = part
        self.news.set()
        return self.open_choices <= 0

    def fail(self, failure: Failure) -> None:
        self.failure = failure
        self.news.set()

    def leave_for(self, replica: str, read_tokens: int) -> None:
        """It was taken out of the queue, which charged its prompt, for a replica that reads so much of it."""
        prompt_tokens = self.value.prompt_tokens
        self.replica, self.predicted_tokens = replica, prompt_tokens - read_tokens
        self.order = msgspec.structs.replace(self.order, read_tokens=read_tokens)
        self.charged_tokens += prompt_tokens
        self.estimated_tokens = prompt_tokens if isinstance(self.order, Call) else 0

    def go_on(self) -> bool:
        """Asks the next replica for what a lost one had still to say; False when that can't be."""
        if self.so_far is None or not self.so_far.token_ids:
            return False
        assert isinstance(self.order, Submit)
        self.order, self.replica = go_on(self.order, self.so_far), None
        said_tokens = len(self.so_far.token_ids)
        self.value = replace(
            self.value,
            prompt_tokens=len(self.order.prompt_ids) + said_tokens,
            max_output_tokens=max(0, self.order.sampling.get("max_tokens", 0) - said_tokens),
        )
        return True

    def begin_again(self) -> None:
        """Forgets what a lost replica said, for the next one."""
        self.order = msgspec.structs.replace(self.order, attempt=self.attempt + 1)
        self.replica, self.open_choices = None, choices(self.order)
        self.pending.clear()
        self.part = None
        self.used = Used(gpu_s=self.used.gpu_s)

    def settle(self) -> None:
        """More became known of what it used after its reader left."""
        if self.bill is not None:
            self.bill.settle()

    def _begun(self, delta: Delta) -> None:
        assert isinstance(self.order, Submit)
        self.used.prompt_tokens = len(self.order.prompt_ids)
        self.used.cached_tokens = min(delta.cached_tokens, self.used.prompt_tokens)

    def _give(self) -> None:
        self.taken = True
        if self.failure is not None:
            self.news.set()


def choices(order: Submit | Call) -> int:
    """Choices that an answer has; a call's answer is one."""
    return order.sampling.get("n", 1) if isinstance(order, Submit) else 1


def _as_api_error(failure: Failure) -> ApiError:
    if failure.status < 500:
        return ApiError(failure.status, failure.message, param=failure.param)
    code = "timeout" if failure.status == 504 else "engine_error"
    return ApiError(failure.status, failure.message, kind="server_error", code=code)
