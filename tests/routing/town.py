"""What do several routers and engines do together, in virtual time? Only what routing decides: no link, no model.

Time goes in ticks. In a tick routers hear the frames that engines sent in the one before, take a turn, and send; then
engines hear what routers sent in the tick before. So everything is late by a tick each way. Every STEP_TICKS ticks an
engine takes a step and tells all routers; in between it tells those that wait for credit when there is some.
"""

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from routing import Credit, Gate, Grants, Head, Placement, Prefixes, Queue, Replica, Request, batch

TICK_S = 0.0125
STEP_TICKS = 4
TTFT_S = 0.5


@dataclass(slots=True)
class Run:
    """A request in an engine."""

    router: int
    request: Request
    unread: int
    made: int = 0


@dataclass
class Submit:
    router: int
    placed: list[Placement]
    head: Head | None
    heard_frame: int


@dataclass
class Frame:
    engine: int
    number: int
    credit: Credit
    received: int
    queued_tokens: int
    running: int
    tokens: list[tuple[Request, int]]
    """Output tokens of this step."""
    news: list[tuple[str, int]]
    ended: list[Request]


class Engine:
    """Reads `step_tokens` of prompts in a step, and makes a token for each request that was read."""

    def __init__(self, number: int, weights: dict[str, float], *, slots: int, step_tokens: int) -> None:
        self.number, self.slots, self.step_tokens = number, slots, step_tokens
        self.grants = Grants(weights)
        self.runs: list[Run] = []
        self.received: Counter[int] = Counter()
        self.frames: Counter[int] = Counter()
        self.inbox: list[Submit] = []
        self.most_unread = 0
        self.largest = 0
        """Prompt that a router announced."""
        self.most_promised = 0

    @property
    def unread(self) -> int:
        return sum(run.unread for run in self.runs)

    def room(self) -> tuple[int, int]:
        return max(0, self.slots - len(self.runs)), max(0, 2 * self.step_tokens - self.unread)

    def hear(self, now_s: float) -> None:
        inbox, self.inbox = self.inbox, []
        for submit in inbox:
            for one in submit.placed:
                self.received[submit.router] += 1
                self.grants.received(submit.router, one.request.tier, one.read_tokens)
                self.grants.served(submit.router, one.request.tenant, one.request.prompt_tokens)
                self.runs.append(Run(submit.router, one.request, one.read_tokens))
            self.largest = max(self.largest, submit.head.tokens if submit.head is not None else 0)
            self.grants.announce(submit.router, submit.head, heard_frame=submit.heard_frame, now_s=now_s)
        assert len(self.runs) <= self.slots, "more requests than it runs at once"
        self.most_unread = max(self.most_unread, self.unread)

    def frames_to(self, routers: int, tick: int) -> list[tuple[int, Frame]]:
        if tick % STEP_TICKS == 0:
            return self.step(routers)
        asks = [router for router in range(routers) if self.grants.short(router) and min(self.room())]
        return [(router, self._frame(router, [], [])) for router in asks]

    def step(self, routers: int) -> list[tuple[int, Frame]]:
        budget, made, ended = self.step_tokens, list[tuple[Run, int]](), list[Run]()
        for run in self.runs:
            if run.unread:
                read = min(budget, run.unread)
                run.unread, budget = run.unread - read, budget - read
                if run.unread or not read:
                    continue
            run.made += 1
            made.append((run, 1))
            self.grants.served(run.router, run.request.tenant, 1)
            if run.made >= run.request.max_output_tokens:
                ended.append(run)
        self.runs = [run for run in self.runs if run not in ended]
        return [(router, self._frame(router, made, ended)) for router in range(routers)]

    def _frame(self, router: int, made: list[tuple[Run, int]], ended: list[Run]) -> Frame:
        requests, tokens = self.room()
        self.frames[router] += 1
        number = self.frames[router]
        most = 2 * self.step_tokens
        credit = self.grants.grant(router, number, requests=requests, tokens=tokens, most_tokens=most)
        news = self.grants.news(router)
        self.grants.told(router)
        promised_requests, promised_tokens = self.grants.outstanding()
        self.most_promised = max(self.most_promised, promised_tokens)
        assert promised_requests <= max(requests, self._largest_promise(0))
        assert promised_tokens <= max(tokens, self._largest_promise(1))
        return Frame(
            self.number,
            number,
            credit,
            self.received[router],
            self.unread,
            len(self.runs),
            [(run.request, count) for run, count in made if run.router == router],
            news,
            [run.request for run in ended if run.router == router],
        )

    def _largest_promise(self, what: int) -> int:
        return max(one.outstanding()[what] for one in self.grants._routers.values())


class Router:
    """Holds a queue and sends what `batch` says."""

    def __init__(self, number: int, engines: list[Engine], weights: dict[str, float], seed: int) -> None:
        self.number = number
        self.queue = Queue(weights)
        self.gate = Gate(1 << 30)
        self.prefixes = Prefixes()
        self.random = Random(seed)
        self.replicas = {str(one.number): Replica(id=str(one.number), most_running=one.slots) for one in engines}
        self.sent: Counter[str] = Counter()
        self.on_the_way: dict[str, deque[int]] = {name: deque() for name in self.replicas}
        self.heard: Counter[str] = Counter()
        self.inbox: list[Frame] = []
        for name in self.replicas:
            self.prefixes.join(name, 100_000)

    def hear(self, now_s: float) -> list[tuple[Request, int]]:
        """Takes the frames in; the output tokens in them."""
        made: list[tuple[Request, int]] = []
        inbox, self.inbox = self.inbox, []
        for frame in inbox:
            name = str(frame.engine)
            flying = self.on_the_way[name]
            self.heard[name] = frame.number
            while len(flying) > self.sent[name] - frame.received:
                flying.popleft()
            self.replicas[name].hear(
                slots=max(0, frame.credit.requests - len(flying)),
                tokens=max(0, frame.credit.tokens - sum(flying)),
                queued_tokens=frame.queued_tokens + sum(flying),
                running=frame.running + len(flying),
            )
            for request, count in frame.tokens:
                self.queue.counters.charge(request.tenant, count)
            for tenant, tokens in frame.news:
                self.queue.counters.charge(tenant, tokens)
            made += frame.tokens
        return made

    def turn(self, now_s: float) -> dict[str, Submit]:
        turn = batch(self.queue, self.replicas, self.prefixes, now_s=now_s, random=self.random, ttft_s=TTFT_S)
        for one in turn.placed:
            self.sent[one.replica] += 1
            self.on_the_way[one.replica].append(one.read_tokens)
            self.gate.drain.leave(now_s, one.request.prompt_tokens)
        head = head_of(self.queue)
        return {
            name: Submit(self.number, [one for one in turn.placed if one.replica == name], head, self.heard[name])
            for name in self.replicas
        }


def head_of(queue: Queue) -> Head | None:
    if (first := queue.first()) is None:
        return None
    return Head(first.tenant, first.tier, first.prompt_tokens, queue.tokens, len(queue))


@dataclass
class Town:
    """Routers and engines, and what every tenant was served."""

    routers: int = 2
    engines: int = 2
    slots: int = 64
    step_tokens: int = 1000
    weights: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.now_s, self._ticks, self._numbers = 0.0, 0, 0
        self.engine_of = [
            Engine(n, self.weights, slots=self.slots, step_tokens=self.step_tokens) for n in range(self.engines)
        ]
        self.router_of = [Router(n, self.engine_of, self.weights, n) for n in range(self.routers)]
        self.served: Counter[str] = Counter()
        self.begun: Counter[int] = Counter()
        self.first_s: dict[int, float] = {}
        self.ended: Counter[int] = Counter()
        self.entered: dict[int, Request] = {}

    def enter(self, router: int, *, prompt: int = 100, output: int = 10, **what: object) -> Request:
        self._numbers += 1
        request = Request(
            id=self._numbers,
            prompt_tokens=prompt,
            max_output_tokens=output,
            arrived_s=self.now_s,
            key=self._numbers,
            **what,  # type: ignore[arg-type]
        )
        self.entered[request.id] = request
        self.router_of[router].queue.add(request)
        self.router_of[router].gate.drain.enter(self.now_s)
        return request

    def tick(self) -> None:
        sent = []
        for router in self.router_of:
            for request, count in router.hear(self.now_s):
                self.served[request.tenant] += count
                self.first_s.setdefault(request.id, self.now_s)
            submits = router.turn(self.now_s)
            for submit in submits.values():
                for one in submit.placed:
                    self.begun[one.request.id] += 1
                    self.served[one.request.tenant] += one.request.prompt_tokens
            sent.append(submits)
        for engine in self.engine_of:
            engine.hear(self.now_s)
            for number, frame in engine.frames_to(self.routers, self._ticks):
                self.router_of[number].inbox.append(frame)
                self.ended.update(request.id for request in frame.ended)
            engine.inbox += [submits[str(engine.number)] for submits in sent]
        self._ticks += 1
        self.now_s += TICK_S

    def run(self, seconds: float, arrive: Callable[[], None] = lambda: None) -> None:
        for _ in range(round(seconds / TICK_S)):
            arrive()
            self.tick()

    def unfinished(self) -> int:
        return len(self.entered) - len(self.ended)
