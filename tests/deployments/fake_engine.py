"""What does a router hear from an engine replica? One without a model, behind a real end of the link.

Each token is one byte of UTF-8, so that characters of several bytes are split over tokens, and what it says
follows from the prompt alone: `expected` tells tests what must arrive.
"""

import asyncio
import codecs
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import zmq

from deployments.frames import Call, Cancel, Delta, Failure, Load, Spent, Submit, Took
from deployments.lane import Lane
from deployments.link import EngineEnd, RouterEnd
from deployments.replica import Replica
from deployments.vllm_app import Application
from tests.deployments.small_app import SmallApp

SAYING = "Ein Bächlein fließt 🚰 durchs Gerinne — 水は低きに流れる. « Voilà »! "
CONTEXT_TOKENS = 4096
STEP_GPU_S = 0.5
"""What it says that a step of one request costs."""
CACHED_TOKENS = 2
"""Prompt tokens that it claims to have had in its cache, for each request."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Said:
    """One choice of an answer."""

    text: str
    token_ids: tuple[int, ...]
    finish: str
    stop: str | None = None

    @property
    def tokens(self) -> int:
        return len(self.token_ids)


def expected(prompt_ids: Sequence[int], *, max_tokens: int, stop: Sequence[str] = (), index: int = 0) -> Said:
    """What the fake engine answers to a prompt."""
    deltas = list(_deltas(0, 0, index, prompt_ids, {"max_tokens": max_tokens, "stop": list(stop)}))
    last = deltas[-1]
    assert last.finish is not None
    return Said(
        text="".join(delta.text for delta in deltas),
        token_ids=tuple(token_id for delta in deltas for token_id in delta.token_ids),
        finish=last.finish,
        stop=last.stop if isinstance(last.stop, str) else None,
    )


@dataclass(slots=True)
class Run:
    """A request that it has taken."""

    router: bytes
    submit: Submit
    choices: list[Iterator[Delta]]
    steps: int = 0
    kept: list[Delta] = field(default_factory=list)
    """What is said at the end, when the request is not streamed."""

    @property
    def spent(self) -> Spent:
        return Spent(self.submit.request, STEP_GPU_S * self.steps)


class FakeEngine:
    """Runs `slots` requests at once, one token of each choice in each step; calls are a small application's.

    `step_s` is the table of step times: the last one repeats. `fail_after` tokens of a request it fails;
    `refuse` is said to every request, with status 400.
    """

    def __init__(
        self,
        *,
        slots: int = 8,
        step_s: Sequence[float] = (0.001,),
        fail_after: int | None = None,
        refuse: str | None = None,
    ) -> None:
        self._slots, self._step_s, self._fail_after, self._refuse = slots, list(step_s), fail_after, refuse
        self._stalled = self.draining = self.closed = False
        self._runs: dict[tuple[bytes, int], Run] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self.app = SmallApp()
        self.calls: list[Call] = []
        self._application = Application(self.app, self._abort)
        self._answers: set[asyncio.Task[None]] = set()
        self.aborted: list[str] = []
        self.submits: list[Submit] = []
        self.cancels: list[int] = []
        self.steps = 0
        self._news = asyncio.Event()
        self.link = EngineEnd(host="127.0.0.1", on_message=self._hear, on_lost=self._drop_router, load=self._load)

    async def until(self, happened: Callable[[], bool]) -> None:
        """Waits until `happened()` is true of what this engine has heard or done. Raises TimeoutError."""
        async with asyncio.timeout(5.0):
            while not happened():
                self._news.clear()
                await self._news.wait()

    @property
    def said_tokens(self) -> int:
        """Of the request that it runs for longest."""
        return max((run.steps for run in self._runs.values()), default=0)

    @property
    def unfinished(self) -> int:
        return len(self._runs) + self._application.open_calls

    def join(self, lane: Lane, name: str = "replica") -> Replica:
        """Links a lane to this engine, with a key of its own."""
        keys = zmq.curve_keypair()
        self.link.allow(keys[0])
        replica = Replica(name, {"max_model_len": CONTEXT_TOKENS, "verified": True})
        address, engine_key = self.link.address, self.link.public_key
        lane.join(replica, lambda **hears: RouterEnd(address=address, engine_key=engine_key, keys=keys, **hears))
        return replica

    def stall(self) -> None:
        """Takes no step until `go`."""
        self._stalled = True

    def go(self) -> None:
        self._stalled = False
        self._step_later()

    def step_once(self) -> None:
        """Takes one step, stalled or not."""
        self.steps += 1
        for key, run in list(self._runs.items())[: self._slots]:
            if not self._advance(run):
                del self._runs[key]
        self._news.set()

    def forget(self) -> None:
        """Forgets what it has heard so far."""
        self.submits, self.calls, self.cancels, self.aborted = [], [], [], []
        self.app.left, self.app.sent_bytes = [], 0

    def drain(self) -> None:
        """Finishes what it has and takes nothing new."""
        self.draining = True
        self.link.announce()

    def close(self, *, died: bool = False) -> None:
        """Says goodbye to its routers, whatever it still has, or what `died` keeps it from saying. Once is enough."""
        if self.closed:
            return
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._runs = {}
        for task in self._answers:
            task.cancel()
        self.link.close(died=died)

    def _load(self) -> Load:
        return Load(
            running_requests=min(self._slots, len(self._runs)),
            waiting_requests=max(0, len(self._runs) - self._slots),
            slots=self._slots,
            credit_requests=max(0, self._slots - self.unfinished),
            credit_tokens=CONTEXT_TOKENS,
            kv_tokens=CONTEXT_TOKENS,
            prefill_tokens_per_s=1000.0,
            draining=self.draining,
        )

    def _hear(self, router: bytes, message: Submit | Call | Cancel | Took) -> None:
        match message:
            case Submit():
                self.submits.append(message)
                self._begin(router, message)
            case Call():
                self.calls.append(message)
                self._answer(router, message)
            case Cancel():
                self.cancels.append(message.request)
                self._application.leave(router, message.request)
                if (run := self._runs.pop((router, message.request), None)) is not None:
                    self.link.say(router, run.spent)
            case Took():
                self._application.took(router, message.request, message.size_bytes)
        self._news.set()

    def _answer(self, router: bytes, call: Call) -> None:
        task = asyncio.ensure_future(self._application.answer(router, call, self.link))
        self._answers.add(task)
        task.add_done_callback(self._answers.discard)
        task.add_done_callback(lambda _: self._news.set())

    async def _abort(self, names: list[str]) -> None:
        self.aborted.extend(names)

    def _begin(self, router: bytes, submit: Submit) -> None:
        if self._refuse is not None:
            self.link.say(router, Failure(submit.request, submit.attempt, 400, self._refuse, "temperature"))
            return
        choices = [_rest(submit, index) for index in range(submit.sampling.get("n", 1))]
        self._runs[router, submit.request] = Run(router, submit, choices)
        self._step_later()

    def _drop_router(self, router: bytes) -> None:
        self._runs = {key: run for key, run in self._runs.items() if run.router != router}
        self._application.drop(router)
        self._news.set()

    def _step_later(self) -> None:
        if self._timer is None and self._runs and not self._stalled:
            seconds = self._step_s[min(self.steps, len(self._step_s) - 1)]
            self._timer = self._loop.call_later(seconds, self._step)

    def _step(self) -> None:
        self._timer = None
        if not self._stalled:
            self.step_once()
            self._step_later()

    def _advance(self, run: Run) -> bool:
        """One token for each open choice; False when the request has ended."""
        submit = run.submit
        if run.steps == self._fail_after:
            self.link.say(run.router, Failure(submit.request, submit.attempt, 503, "EngineDeadError: it broke"))
            self.link.say(run.router, run.spent)
            return False
        run.steps += 1
        new = [delta for choice in run.choices if (delta := next(choice, None)) is not None]
        run.kept.extend(new)
        going = any(delta.finish is None for delta in new)
        if submit.stream or not going:
            for delta in run.kept:
                self.link.say(run.router, delta)
            run.kept = []
        if not going:
            self.link.say(run.router, run.spent)
        return going


def _rest(submit: Submit, index: int) -> Iterator[Delta]:
    """What is left to say of one choice: all of it, or what a lost engine did not say."""
    deltas = _deltas(submit.request, submit.attempt, index, submit.prompt_ids, submit.sampling)
    text = ""
    for said_id in submit.said_ids:
        delta = next(deltas)
        assert delta.token_ids == [said_id], "ids that this prompt does not lead to"
        assert delta.finish is None
        text += delta.text
    assert len(text) == submit.sent_characters
    yield from deltas


def _deltas(
    request: int, attempt: int, index: int, prompt_ids: Sequence[int], sampling: dict[str, Any]
) -> Iterator[Delta]:
    start = (sum(prompt_ids) + 7 * index) % len(SAYING)
    source = (SAYING[start:] + SAYING[:start]).encode()
    limit = sampling.get("max_tokens", 16)
    stops = [stop] if isinstance(stop := sampling.get("stop") or [], str) else stop
    held = max((len(stop) - 1 for stop in stops), default=0)
    decoder = codecs.getincrementaldecoder("utf-8")()
    text, given = "", 0
    for count in range(1, limit + 1):
        byte = source[(count - 1) % len(source)]
        text += decoder.decode(bytes([byte]))
        hit = next((stop for stop in stops if stop in text), None)
        text = text[: text.index(hit)] if hit is not None else text
        finish = "stop" if hit is not None else "length" if count == limit else None
        end = len(text) if finish is not None else max(given, len(text) - held)
        yield Delta(request, attempt, index, text[given:end], [byte], finish, hit, CACHED_TOKENS)
        given = end
        if finish is not None:
            return
