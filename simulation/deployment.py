"""What do the replicas of one deployment do with the requests that come to it, as a policy sets their number?"""

import random
from array import array
from collections import deque
from heapq import heappop, heappush
from math import ceil, inf
from typing import Any

import numpy as np

from autoscaling import Fleet, StepFit, Tally, Targets
from simulation.decodes import Sequence
from simulation.desk import Desk
from simulation.dispatcher import MakeDispatcher
from simulation.engine import Engine
from simulation.outcome import Change, Run
from simulation.policy import Observed, Policy
from simulation.prefix_cache import PrefixCache
from simulation.replica import Pace, Replica
from simulation.setup import Setup
from simulation.trace import Trace

LEAST_S = 1e-9
"""After a request was sent its step has begun, and when it ends is known."""
REFIT_S = 10
"""Between two looks at what steps cost."""
RECENT = 20_000
"""Requests that are remembered for percentiles."""


class _Recent:
    """How requests that ended lately were served."""

    def __init__(self) -> None:
        self._ended: deque[tuple[float, float, float]] = deque(maxlen=RECENT)
        self.now_s = 0.0

    def add(self, ttft_s: float, token_s: float) -> None:
        self._ended.append((self.now_s, ttft_s, token_s))

    def percentile(self, share: float, *, last_s: float) -> tuple[float, float]:
        found = []
        for at_s, ttft_s, token_s in reversed(self._ended):
            if at_s <= self.now_s - last_s:
                break
            found.append((ttft_s, token_s))
        if not found:
            return 0.0, 0.0
        place = min(len(found) - 1, ceil(share * len(found)) - 1)
        return sorted(one[0] for one in found)[place], sorted(one[1] for one in found)[place]


class Deployment:
    """Replicas, the router before them, and the policy that is asked each second. Its times are the simulation's."""

    def __init__(
        self, trace: Trace, setup: Setup, policy: Policy, targets: Targets, seed: int, desk: MakeDispatcher
    ) -> None:
        self._trace, self._setup, self._policy, self._targets = trace, setup, policy, targets
        self._random = random.Random(seed)
        self._memory: Any = None
        self._tally, self._recent = Tally(), _Recent()
        # A trace's blocks are powers of 2 as well: shorter ones than the cache's are seen as its own.
        self._every = max(1, setup.settings.block_tokens // (trace.block_tokens or setup.settings.block_tokens))
        self._prefix_tokens = self._every * (trace.block_tokens or setup.settings.block_tokens)
        self._desk = desk(setup, prefix_tokens=self._prefix_tokens, ttft_s=targets.ttft_s, seed=seed)
        self._fit = StepFit()
        self._costs = self._fit.costs()
        self._starting: list[Replica] = []
        self._running: list[Replica] = []
        self._draining: list[Replica] = []
        self._made = 0
        self._device_s = 0.0
        # Of single numbers an array is quicker than numpy's.
        self._first_s, self._last_s = (array("d", [inf]) * trace.requests for _ in range(2))
        self._found_tokens = array("i", [0]) * trace.requests
        self.unfinished = 0
        """Requests that were let in and have not ended."""
        self._changes: list[Change] = []
        self._series: tuple[list[int], list[int], list[int]] = ([], [], [])
        self._refused = self._failures = 0
        self._release_s = inf
        self._ending: list[tuple[float, int, Sequence, Replica]] = []
        for _ in range(setup.begins_with):
            self._running.append(self._replica(0.0, ready_s=0.0))

    @property
    def serves(self) -> bool:
        """A replica would take a request now."""
        return bool(self._running)

    def wait_s(self, now_s: float) -> float:
        """Predicted seconds until a prompt that came now would begin to be read, by a router of Headrace's."""
        if not isinstance(self._desk, Desk):
            raise TypeError(f"{type(self._desk).__name__} predicts nothing")
        for replica in self._running:
            self._settle(replica, now_s)
        return self._desk.wait_s(self._running, now_s)

    def run(self, end_s: float) -> Run:
        """What it did until then, when everything has ended: those that still run are paid until then."""
        for replica in (*self._starting, *self._running, *self._draining):
            self._pay(replica, max(end_s, replica.asked_s))
        return Run(
            trace=self._trace,
            first_s=np.array(self._first_s),
            last_s=np.array(self._last_s),
            found_tokens=np.array(self._found_tokens),
            end_s=end_s,
            device_s=self._device_s,
            running=np.array(self._series[0], dtype=np.int32),
            present=np.array(self._series[1], dtype=np.int32),
            queued=np.array(self._series[2], dtype=np.int32),
            changes=self._changes,
            refused=self._refused,
            failures=self._failures,
        )

    @property
    def ended_s(self) -> float:
        """When the last request that was answered had ended; 0 where none was."""
        return max((end_s for end_s in self._last_s if end_s < inf), default=0.0)

    def next_s(self) -> float:
        """When something happens that is no arrival and no decision."""
        next_s = self._release_s
        for replica in self._starting:
            next_s = min(next_s, replica.ready_s)
        if self._setup.failure_s < inf:
            for replica in (*self._running, *self._draining):
                next_s = min(next_s, replica.fails_s)
        return next_s

    def happen(self, now_s: float) -> None:
        """What `next_s` told of."""
        for replica in [one for one in self._starting if one.ready_s <= now_s]:
            self._starting.remove(replica)
            self._running.append(replica)
        for replica in [one for one in (*self._running, *self._draining) if one.fails_s <= now_s]:
            self._fail(replica, now_s)
        self._dispatch(now_s)

    def arrive(self, place: int, now_s: float) -> None:
        """The request at this place of the trace comes."""
        trace = self._trace
        sequence = Sequence(
            arrival_s=now_s,
            prompt_tokens=int(trace.prompt_tokens[place]),
            output_tokens=int(trace.output_tokens[place]),
            number=place,
            prefix=trace.prefixes[place][self._every - 1 :: self._every] if trace.prefixes else (),
        )
        self._tally.arrived(now_s, sequence.prompt_tokens)
        if self._desk.enter(sequence):
            self.unfinished += 1
            self._dispatch(now_s)
        else:
            self._refuse(now_s)

    def _dispatch(self, now_s: float) -> None:
        for replica in self._running:
            self._settle(replica, now_s)
        if self._ending and self._ending[0][0] <= now_s:
            self._finish(now_s)
        for sequence, replica in self._desk.dispatch(self._running, now_s):
            if replica is None:
                self.unfinished -= 1
                self._refuse(now_s)
            else:
                self._note(replica, replica.add(sequence, now_s))
        self._release_s = inf
        if len(self._desk) and self._running:
            change_s = min([replica.engine.changes_s for replica in self._running])
            if self._ending:
                change_s = min(change_s, self._ending[0][0])
            self._release_s = max(now_s + self._setup.dispatch_s, change_s, now_s + LEAST_S)

    def _refuse(self, now_s: float) -> None:
        self._refused += 1
        self._tally.broke_off(0)
        self._tally.ended(now_s, whole=False, missed=True)

    def _settle(self, replica: Replica, now_s: float) -> None:
        if done := replica.engine.settle(now_s):
            self._note(replica, done)

    def _note(self, replica: Replica, done: list[Sequence]) -> None:
        """An engine says who ends in a step when that begins: nobody else knows before its end."""
        for sequence in done:
            heappush(self._ending, (sequence.last_token_s, sequence.number, sequence, replica))

    def _finish(self, now_s: float) -> None:
        while self._ending and self._ending[0][0] <= now_s:
            _, _, sequence, replica = heappop(self._ending)
            replica.held.discard(sequence)
            number = sequence.number
            first_s = min(self._first_s[number], sequence.first_token_s)
            self._first_s[number], self._last_s[number] = first_s, sequence.last_token_s
            self._found_tokens[number] = sequence.found_tokens
            tokens = int(self._trace.output_tokens[number])
            ttft_s = first_s - float(self._trace.at_s[number])
            token_s = (sequence.last_token_s - first_s) / max(1, tokens - 1)
            self.unfinished -= 1
            self._recent.add(ttft_s, token_s)
            missed = ttft_s > self._targets.ttft_s or token_s > self._targets.token_s
            self._tally.ended(self._recent.now_s, whole=True, missed=missed)

    def decide(self, now_s: float) -> None:
        """A second is over: the policy is asked."""
        self._recent.now_s = now_s
        for replica in (*self._running, *self._draining):
            self._settle(replica, now_s)
            self._tally.made(replica.news(now_s))
        self._finish(now_s)
        if self._draining:
            self._drain(now_s)
        if now_s % REFIT_S == 0 or self._costs is None:
            self._costs = self._fit.costs()
        costs = self._costs
        fleet = Fleet(
            now_s=now_s,
            replicas=tuple([replica.load(costs) for replica in self._running]),
            starting=len(self._starting),
            queued_requests=len(self._desk),
            queued_tokens=self._desk.tokens,
            traffic=self._tally.traffic(now_s),
            min_replicas=self._setup.min_replicas,
            max_replicas=self._setup.max_replicas,
        )
        decided, self._memory = self._policy(Observed(fleet=fleet, served=self._recent), self._memory)
        wanted, present = fleet.within_bounds(decided.replicas), fleet.present
        if wanted != present:
            self._changes.append(Change(at_s=now_s, before=present, replicas=wanted, reason=decided.reason))
            self._resize(wanted, now_s)
        running, everything, queued = self._series
        running.append(len(self._running))
        everything.append(len(self._running) + len(self._starting) + len(self._draining))
        queued.append(len(self._desk))

    def _resize(self, wanted: int, now_s: float) -> None:
        """Serve's way: those that are starting go first, then the newest; who runs ends what it has."""
        while len(self._starting) + len(self._running) > wanted:
            if self._starting:
                self._pay(self._starting.pop(), now_s)
            else:
                self._draining.append(self._running.pop())
        while len(self._starting) + len(self._running) < wanted:
            self._start(now_s)
        self._drain(now_s)

    def _drain(self, now_s: float) -> None:
        for replica in [one for one in self._draining if not one.held]:
            self._draining.remove(replica)
            self._pay(replica, now_s)

    def _fail(self, replica: Replica, now_s: float) -> None:
        """Its requests go on elsewhere, after the tokens they had; Serve starts another replica for it."""
        done, left = replica.engine.fail(now_s)
        self._note(replica, done)
        self._failures += 1
        again = []
        for sequence in left:
            self._first_s[sequence.number] = min(self._first_s[sequence.number], sequence.first_token_s)
            again.append(
                Sequence(
                    arrival_s=now_s,
                    prompt_tokens=sequence.prompt_tokens + sequence.made_tokens,
                    output_tokens=sequence.output_tokens - sequence.made_tokens,
                    number=sequence.number,
                    prefix=sequence.prefix,
                )
            )
        self._desk.again(again)
        self._pay(replica, now_s)
        if replica in self._draining:
            self._draining.remove(replica)
        else:
            self._running.remove(replica)
            self._start(now_s)

    def _start(self, now_s: float) -> None:
        self._starting.append(self._replica(now_s, ready_s=now_s + self._setup.start_of(self._made + 1)))

    def _pay(self, replica: Replica, until_s: float) -> None:
        self._device_s += (until_s - replica.asked_s) * self._setup.devices

    def _replica(self, asked_s: float, *, ready_s: float) -> Replica:
        self._made += 1
        setup, trace, pace = self._setup, self._trace, Pace(self._fit)
        engine = Engine(
            setup.settings,
            kv_blocks=setup.kv_blocks,
            step=setup.step_of(self._made),
            plans_ahead=setup.plans_ahead,
            timer=pace,
            prefixes=PrefixCache(self._prefix_tokens) if trace.prefixes else None,
        )
        fails_s = ready_s + self._random.expovariate(1 / setup.failure_s) if setup.failure_s < inf else inf
        return Replica(self._made, setup, engine, pace, asked_s=asked_s, ready_s=ready_s, fails_s=fails_s)
