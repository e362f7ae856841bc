"""Is what benchmarks.routing and benchmarks.overload tell also so on real engines? The same requests, live and virtual.

    python -m benchmarks.routing_live --quick
    python -m benchmarks.routing_live --rounds 3 --out docs/evidence/routing_live.json

One fleet of real vLLM engines of the tiny model, whose steps last 50 ms by `benchmarks.paced` and read 64 tokens: three
of them are a model of three replicas behind Headrace's router, three are models of one replica each, of which the load
generator names one by the others' choosers as soon as a request is due. What it knows of them is what it sent and what
came back.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from math import inf
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import overload, routing
from benchmarks.live_fleet import Told, as_run, engine, kv_tokens, lengths, paced, played
from benchmarks.live_fleet import fleet as live_fleet
from benchmarks.machine_facts import circumstances
from benchmarks.overload import TARGET_S, told_tiers
from benchmarks.pace import STEP_S
from benchmarks.routing import OURS, ROUTERS
from cluster.engine_memory import EngineSettings
from routing import Tier
from simulation.choosers import BLOCK_TOKENS, CHOOSERS, Asked, Seen
from simulation.early import known_blocks
from simulation.setup import Setup
from simulation.trace import Trace

NAME = "routing-live"
REPLICAS, SLOTS, CONTEXT_TOKENS, STEP_TOKENS, CACHE_BYTES = 3, 8, 512, 64, 128 << 20
ANSWER_TOKENS = 24
FIRST_TOKENS, TURN_TOKENS, TURNS, PAUSE_S = 64, 64, 6, 2.0
"""Of a conversation: what all begin with, what each turn adds, how many there are, and the mean time between them."""
SHARED_TOKENS = 32
"""Of a block of the engines' caches: vLLM on CPUs takes no smaller ones."""
TAIL_TOKENS = 8
"""Of each prompt, that no other has."""
AGENTS, TWICE = "agents", "overload"
LOAD = {AGENTS: 0.6, TWICE: 2.0}
"""Shares of the slots, of what engines can serve."""
TIERS = (0.3, 0.3, 0.4)
SERVICE_TIERS = ("priority", "default", "flex")
AMONG = {AGENTS: tuple(ROUTERS), TWICE: (OURS, "power_of_two", "llm_d")}
"""Who is compared: under overload all that bind early do the same."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One router, once: what benchmarks.routing or benchmarks.overload tells of it, live and simulated."""

    scene: str
    round: int
    router: str
    live: routing.Point | overload.Point
    simulated: routing.Point | overload.Point


@dataclass(slots=True)
class Sent:
    """What a client knows of one engine."""

    inside: dict[int, int] = field(default_factory=dict)
    """Tokens of the prompts that have not ended, by place in the trace."""
    unread: set[int] = field(default_factory=set)
    """Places of those without a first token."""
    ever: set[int] = field(default_factory=set)
    """Blocks that it was sent."""
    ever_tokens: int = 0


class Clerk:
    """Names an engine for each request by a chooser."""

    def __init__(self, router: str, trace: Trace, *, cache_tokens: int, seed: int) -> None:
        self._chooser, self._trace, self._cache_tokens = CHOOSERS[router], trace, cache_tokens
        self._random, self._asked = Random(seed), 0
        self._sent = [Sent() for _ in range(REPLICAS)]

    def model_of(self, place: int) -> str:
        """Of the request at this place, which is sent now."""
        tokens = int(self._trace.prompt_tokens[place])
        prefix = self._trace.prefixes[place] if self._trace.prefixes else ()
        asked = Asked(prompt_tokens=tokens, number=self._asked)
        number = self._chooser(asked, [self._seen(one, tokens, prefix) for one in self._sent], self._random)
        self._asked += 1
        sent = self._sent[number]
        sent.ever_tokens += tokens - known_blocks(prefix, sent.ever) * SHARED_TOKENS
        sent.ever.update(prefix)
        sent.inside[place] = tokens
        sent.unread.add(place)
        return f"alone-{number}"

    def heard(self, place: int, ended: bool) -> None:
        """Its first token came, or its end."""
        sent = next(one for one in self._sent if place in one.inside)
        sent.unread.discard(place)
        if ended:
            del sent.inside[place]

    def _seen(self, sent: Sent, tokens: int, prefix: tuple[int, ...]) -> Seen:
        inside_tokens, known = sum(sent.inside.values()), known_blocks(prefix, sent.ever) * SHARED_TOKENS
        return Seen(
            requests=len(sent.inside),
            waiting=max(0, len(sent.inside) - SLOTS),
            tokens=inside_tokens,
            unread_tokens=sum(sent.inside[place] for place in sent.unread),
            held_blocks=inside_tokens // BLOCK_TOKENS,
            kv_share=min(1.0, inside_tokens / self._cache_tokens),
            sent_tokens=sent.ever_tokens,
            cached_tokens=min(tokens - 1, known),
            sent_before_tokens=min(tokens - 1, known),
            new_blocks=-(-tokens // BLOCK_TOKENS) - known // BLOCK_TOKENS,
        )


def setup(cache_tokens: int, replicas: int = REPLICAS) -> Setup:
    """The same engines, simulated."""
    settings = EngineSettings(
        max_sequences=SLOTS, batched_tokens=STEP_TOKENS, context_tokens=CONTEXT_TOKENS, block_tokens=SHARED_TOKENS
    )
    return Setup(
        settings=settings,
        kv_blocks=cache_tokens // SHARED_TOKENS,
        step=lambda chunks: STEP_S,
        plans_ahead=False,
        min_replicas=replicas,
        max_replicas=replicas,
        begins_with=replicas,
    )


def agents(span_s: float, seed: int) -> Trace:
    """Conversations that begin by chance; the first blocks of a turn are all but the tail of the one before."""
    source = np.random.default_rng(seed)
    rate = LOAD[AGENTS] * REPLICAS * SLOTS / STEP_S / ANSWER_TOKENS
    first, each = FIRST_TOKENS // SHARED_TOKENS, TURN_TOKENS // SHARED_TOKENS
    rows, before_s = list[tuple[float, tuple[int, ...]]](), TURNS * PAUSE_S
    for number in range(round(rate * (span_s + before_s) / TURNS)):
        at_s, own = source.uniform(-before_s, span_s), first + number * TURNS * each
        for turn in range(TURNS):
            blocks = (*range(first), *range(own, own + turn * each))
            rows += [(at_s, blocks)] if 0 <= at_s <= span_s else []
            at_s += source.exponential(PAUSE_S)
    rows.sort()
    return Trace(
        at_s=np.array([at_s - rows[0][0] for at_s, _ in rows]),
        prompt_tokens=np.array([len(blocks) * SHARED_TOKENS + TAIL_TOKENS for _, blocks in rows], dtype=np.int32),
        output_tokens=np.full(len(rows), ANSWER_TOKENS, dtype=np.int32),
        prefixes=[blocks for _, blocks in rows],
        block_tokens=SHARED_TOKENS,
    )


def strangers(count: int, seed: int) -> Trace:
    """Requests of which no two share anything, all at once."""
    source = np.random.default_rng(seed)
    prompts, answers = (lengths(source, mean, count) for mean in (96, ANSWER_TOKENS))
    return Trace(at_s=np.zeros(count), prompt_tokens=prompts, output_tokens=answers)


class Bench:
    """The fleet, for as long as it runs."""

    def __init__(self, url: str, span_s: float) -> None:
        self._url, self._span_s, self._cache_tokens = url, span_s, kv_tokens(url)

    def agents(self, number: int, router: str) -> Pair:
        """Conversations."""
        trace = agents(self._span_s, number)
        told = self._live(trace, router, number)
        run = routing.run_of(trace, setup(self._cache_tokens), ROUTERS[router], number)
        point = partial(
            routing.point,
            from_s=routing.WARM * self._span_s,
            scene=AGENTS,
            replicas=REPLICAS,
            seed=number,
            router=router,
        )
        return Pair(scene=AGENTS, round=number, router=router, live=point(as_run(trace, told)), simulated=point(run))

    def twice(self, number: int, router: str) -> Pair:
        """Twice what can be served, in three tiers."""
        base = strangers(2000, number)
        capacity = REPLICAS * overload.capacity_per_s(setup(self._cache_tokens, 1), base, number)
        trace = overload.drawn(base, LOAD[TWICE] * capacity, self._span_s, number)
        tiers = np.random.default_rng(number).choice(len(Tier), size=trace.requests, p=TIERS)
        told = self._live(trace, router, number, tiers)
        desk = told_tiers(tiers) if router == OURS else ROUTERS[router]
        run = routing.run_of(trace, setup(self._cache_tokens), desk, number)
        point = partial(
            overload.point, tiers=tiers, capacity=capacity, span_s=self._span_s, scene=TWICE, replicas=REPLICAS
        )
        live, simulated = (point(one, seed=number, router=router) for one in (as_run(trace, told), run))
        return Pair(scene=TWICE, round=number, router=router, live=live, simulated=simulated)

    def _live(self, trace: Trace, router: str, seed: int, tiers: NDArray[Any] | None = None) -> list[Told]:
        # Other prompts each time: nothing is in the caches but what this run brings.
        play = partial(played, self._url, trace, seed=_apart(trace, router, seed))
        if router != OURS:
            clerk = Clerk(router, trace, cache_tokens=self._cache_tokens, seed=seed)
            return asyncio.run(play(model_of=clerk.model_of, heard=clerk.heard))
        return asyncio.run(play(model_of=lambda place: "together", asked=partial(_asked, tiers)))


def _apart(trace: Trace, router: str, seed: int) -> int:
    return 1000 * seed + 100 * bool(trace.prefixes) + tuple(ROUTERS).index(router)


def _asked(tiers: NDArray[Any] | None, place: int) -> tuple[dict[str, str], dict[str, Any]]:
    if tiers is None:
        return {}, {}
    target_s = TARGET_S[tiers[place]]
    headers = {"x-headrace-deadline-s": f"{target_s:g}"} if target_s < inf else {}
    return headers, {"service_tier": SERVICE_TIERS[tiers[place]]}


def compared(rounds: int, span_s: float) -> Iterator[Pair]:
    """Every scene and router in every round, in an order by lot."""
    arguments = engine(slots=SLOTS, context_tokens=CONTEXT_TOKENS, step_tokens=STEP_TOKENS, cache_bytes=CACHE_BYTES)
    arguments["block_size"] = SHARED_TOKENS
    models = {"together": REPLICAS} | {f"alone-{number}": 1 for number in range(REPLICAS)}
    with live_fleet(NAME, paced(models, arguments)) as url:
        bench = Bench(url, span_s)
        for router in (OURS, "round_robin"):
            bench.agents(0, router)
        for number in range(1, rounds + 1):
            turns = [
                (play, router)
                for play, scene in ((bench.agents, AGENTS), (bench.twice, TWICE))
                for router in AMONG[scene]
            ]
            Random(number).shuffle(turns)
            for play, router in turns:
                yield play(number, router)


def tables(pairs: Sequence[Pair]) -> str:
    """Each scene, live and simulated."""
    lines = list[str]()
    for scene, told in ((AGENTS, routing.table), (TWICE, overload.table)):
        for how in ("live", "simulated"):
            points: list[Any] = [getattr(pair, how) for pair in pairs if pair.scene == scene]
            if points:
                lines += [f"\n{how}:{told(points, scene, REPLICAS)}"]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Plays all, prints what came, and writes it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--span", type=float, default=30.0, help="seconds over which requests come (30)")
    parser.add_argument("--quick", action="store_true", help="one round of 15 s")
    parser.add_argument("--out", help="file for the JSON")
    options = parser.parse_args(argv)
    if options.quick:
        options.rounds, options.span = 1, 15.0
    pairs = list[Pair]()
    for pair in compared(options.rounds, options.span):
        pairs.append(pair)
        print(f"{pair.scene} #{pair.round} {pair.router}: {pair.live}", file=sys.stderr, flush=True)
        if options.out:
            facts = circumstances()
            facts |= {"step_s": STEP_S, "span_s": options.span, "replicas": REPLICAS}
            told = facts | {"load": LOAD, "pairs": [asdict(one) for one in pairs]}
            Path(options.out).write_text(json.dumps(told, indent=1) + "\n")
    print(tables(pairs))


if __name__ == "__main__":
    main()
