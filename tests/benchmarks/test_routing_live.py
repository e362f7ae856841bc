"""The live comparison of routers: its conversations, and what its client knows of engines."""

import numpy as np

from benchmarks.live_fleet import Told, as_run, prompts
from benchmarks.pace import STEP_S
from benchmarks.routing_live import LOAD, REPLICAS, SLOTS, Clerk, agents
from simulation.trace import Trace


def test_conversations_ask_for_their_share_of_the_slots_and_grow_from_turn_to_turn() -> None:
    trace = agents(600.0, seed=1)
    made = trace.output_tokens.sum() / trace.span_s
    assert abs(made / (LOAD["agents"] * REPLICAS * SLOTS / STEP_S) - 1) < 0.05
    for prefix, tokens in zip(trace.prefixes, trace.prompt_tokens.tolist(), strict=True):
        assert prefix[:2] == (0, 1)
        assert len(prefix) * trace.block_tokens < tokens


def test_prompts_share_what_their_blocks_say_and_nothing_else() -> None:
    trace = agents(30.0, seed=2)
    ids = prompts(trace, seed=3)
    assert [len(one) for one in ids] == trace.prompt_tokens.tolist()
    heads = {prefix: one[: len(prefix) * trace.block_tokens] for prefix, one in zip(trace.prefixes, ids, strict=True)}
    for prefix, head in heads.items():
        assert all(other[: len(head)] == head for longer, other in heads.items() if longer[: len(prefix)] == prefix)
    assert len({tuple(one) for one in ids}) == trace.requests


def two_turns() -> Trace:
    return Trace(
        at_s=np.arange(3.0),
        prompt_tokens=np.array([136, 232, 136], dtype=np.int32),
        output_tokens=np.full(3, 5, dtype=np.int32),
        prefixes=[(0, 1, 2, 3), (0, 1, 2, 3, 4, 5, 6), ()],
        block_tokens=32,
    )


def test_a_client_goes_where_the_conversation_went_and_strangers_elsewhere() -> None:
    clerk = Clerk("llm_d", two_turns(), cache_tokens=10_000, seed=1)
    first = clerk.model_of(0)
    assert clerk.model_of(1) == first
    assert clerk.model_of(2) != first


def test_what_has_ended_is_no_load() -> None:
    clerk = Clerk("least_tokens", two_turns(), cache_tokens=10_000, seed=1)
    models = []
    for place in range(3):
        models.append(clerk.model_of(place))
        clerk.heard(place, False)
    assert len(set(models)) == REPLICAS
    again = Clerk("power_of_two", two_turns(), cache_tokens=10_000, seed=1)
    for place in range(3):
        again.model_of(place)
        again.heard(place, True)
    assert all(not sent.inside and not sent.unread for sent in again._sent)


def test_refused_requests_count_as_never_answered() -> None:
    run = as_run(two_turns(), [Told(first_s=0.1, last_s=0.4, cached_tokens=3), Told(), Told(first_s=2.0, last_s=2.5)])
    assert run.refused == 1
    assert run.end_s == 2.5
    assert run.found_tokens.tolist() == [3, 0, 0]
