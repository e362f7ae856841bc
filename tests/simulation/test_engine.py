"""An engine in virtual time schedules as vLLM does: cases by hand, and laws for any load."""

from collections.abc import Sequence as Steps
from itertools import pairwise
from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.engine_memory import EngineSettings
from cluster.step_work import Chunk
from simulation.decodes import Sequence
from simulation.engine import Engine, StepRecord
from simulation.prefix_cache import PrefixCache
from simulation.replay import Arrival, replay


def settings(**changed: int) -> EngineSettings:
    given = {"max_sequences": 2, "batched_tokens": 4, "context_tokens": 1000, "block_tokens": 4} | changed
    return EngineSettings(
        max_sequences=given["max_sequences"],
        batched_tokens=given["batched_tokens"],
        context_tokens=given["context_tokens"],
        block_tokens=given["block_tokens"],
    )


def one_second(chunks: Steps[Chunk]) -> float:
    return 1.0


def linear(chunks: Steps[Chunk]) -> float:
    """As a roofline's: a part for the step, each sequence, each token and each cached token."""
    return 0.01 + sum(chunk.count * (0.001 + 1e-4 * chunk.new_tokens + 1e-6 * chunk.context_tokens) for chunk in chunks)


def run(arrivals: Steps[Arrival], **options: Any) -> tuple[list[tuple[float, float, float]], list[StepRecord]]:
    """When each request was scheduled, got its first and its last token; and the steps."""
    log: list[StepRecord] = []
    options = {"kv_blocks": 100, "step": one_second, "plans_ahead": False} | options
    limits = options.pop("settings", settings())
    done = replay(arrivals, Engine(limits, log=log, **options))
    return [(each.scheduled_s, each.first_token_s, each.last_token_s) for each in done], log


def test_a_prompt_is_read_in_chunks_and_its_first_token_comes_with_the_last_of_them() -> None:
    times, log = run([(5.0, 10, 3)])
    assert times == [(5, 8, 10)]
    assert [(step.prompt_tokens, step.decodes, step.steps) for step in log] == [
        (4, 0, 1),
        (4, 0, 1),
        (2, 0, 1),
        (0, 1, 2),
    ]


def test_decodes_come_first_and_prompts_share_what_is_left_of_a_step() -> None:
    times, log = run([(0.0, 4, 4), (0.0, 5, 1)])
    assert times == [(0, 1, 4), (1, 3, 3)]
    assert [(step.prompt_tokens, step.decodes) for step in log] == [(4, 0), (3, 1), (2, 1), (0, 1)]


def test_a_third_request_waits_for_a_place_in_the_order_of_arrival() -> None:
    times, _ = run([(0.0, 2, 3), (0.0, 2, 5), (0.5, 1, 1), (0.5, 1, 1)])
    assert times == [(0, 1, 3), (0, 1, 5), (3, 4, 4), (4, 5, 5)]


def test_a_step_that_is_planned_ahead_knows_neither_who_came_nor_who_left_during_the_one_before() -> None:
    times, _ = run([(0.0, 2, 3), (0.0, 2, 5), (0.5, 1, 1)], plans_ahead=True)
    assert times == [(0, 1, 3), (0, 1, 5), (4, 5, 5)]
    came, _ = run([(0.0, 2, 9), (0.5, 1, 1)], plans_ahead=True)
    assert came[1] == (2, 3, 3)


def test_an_idle_engine_begins_at_once_and_a_request_during_its_last_step_at_that_steps_end() -> None:
    for plans_ahead in (False, True):
        times, _ = run([(0.0, 1, 2), (1.5, 1, 1), (9.25, 1, 1)], plans_ahead=plans_ahead)
        assert times == [(0, 1, 2), (2, 3, 3), (9.25, 10.25, 10.25)]


def steps_of(log: list[StepRecord]) -> list[tuple[int, int]]:
    """Prompt tokens and decodes of every step."""
    return [(record.prompt_tokens, record.decodes) for record in log for _ in range(record.steps)]


def test_without_blocks_the_last_that_came_gives_way_until_there_is_room_for_all_it_has_said() -> None:
    """Two prompts of a block each; their fifth tokens need two more, of which there is one."""
    (_, second), log = run([(0.0, 4, 4), (0.0, 4, 3)], kv_blocks=3, settings=settings(batched_tokens=8))
    # It needs two blocks, which are free when the first has left. Its prompt's is still as it was.
    assert second == (0, 1, 6)
    assert steps_of(log) == [(8, 0), (0, 1), (0, 1), (0, 1), (1, 0), (0, 1)]


def test_what_others_have_written_over_is_computed_anew() -> None:
    """The first needs a third block, and the only free one is what the second gave back."""
    (_, second), log = run([(0.0, 4, 9), (0.0, 4, 3)], kv_blocks=3, settings=settings(batched_tokens=8))
    assert second == (0, 1, 11)
    assert steps_of(log) == [(8, 0), *[(0, 1)] * 8, (5, 0), (0, 1)]


def test_a_prompt_that_meets_no_blocks_while_it_is_read_gives_its_own_back() -> None:
    """The second is let in while its four blocks are free; before it takes the last, the first needs one more."""
    times, log = run([(0.0, 4, 7), (0.0, 15, 1)], kv_blocks=6)
    assert times == [(0, 1, 7), (1, 8, 8)]
    assert [prompt_tokens for prompt_tokens, _ in steps_of(log)] == [4, 3, 3, 3, 3, 0, 0, 3]


def test_a_request_waits_until_its_whole_prompt_has_room_and_holds_up_those_behind_it() -> None:
    times, _ = run([(0.0, 8, 4), (0.0, 8, 1), (0.0, 1, 1)], kv_blocks=4, settings=settings(batched_tokens=8))
    assert [scheduled_s for scheduled_s, _, _ in times] == [0, 4, 5]


def test_until_a_moment_only_steps_planned_before_it_are_taken() -> None:
    engine = Engine(settings(), kv_blocks=100, step=one_second, plans_ahead=False)
    assert engine.planned_s == inf
    engine.add(Sequence(arrival_s=0.0, prompt_tokens=1, output_tokens=8))
    moments = []
    for until_s in (0.0, 0.5, 4.0, 4.1, 99.0):
        engine.advance(until_s)
        moments.append(engine.now_s)
    assert moments == [0, 1, 4, 5, 8]


@pytest.mark.parametrize(
    ("arrival", "complaint"),
    [
        ((0.0, 0, 1), "prompt_tokens and output_tokens must be at least 1, got 0 and 1"),
        ((0.0, 8, 2), "prompt_tokens and output_tokens must be at most 9 together, got 10"),
    ],
)
def test_a_request_that_could_never_run_is_refused(arrival: Arrival, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        run([arrival], kv_blocks=2)


def test_limits_and_times_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="batched_tokens must be at least max_sequences 5, got 4"):
        Engine(settings(max_sequences=5), kv_blocks=1, step=one_second)
    with pytest.raises(ValueError, match="kv_blocks must be at least 1, got 0"):
        Engine(settings(), kv_blocks=0, step=one_second)
    with pytest.raises(ValueError, match="step must say a number of seconds above 0, got nan"):
        run([(0.0, 1, 1)], step=lambda chunks: float("nan"))
    with pytest.raises(ValueError, match=r"arrivals must be in order, got 1.0 after 2.0"):
        run([(2.0, 1, 1), (1.0, 1, 1)])


limits = st.builds(
    lambda sequences, room, block: settings(
        max_sequences=sequences, batched_tokens=sequences + room, block_tokens=block
    ),
    st.integers(1, 6),
    st.integers(0, 12),
    st.sampled_from([1, 4, 16]),
)
requests = st.lists(
    st.tuples(st.floats(0, 2, allow_subnormal=False), st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=25
).map(sorted)
loads = st.fixed_dictionaries({"settings": limits, "tokens": st.integers(80, 400), "plans_ahead": st.booleans()})


def engine(load: dict[str, Any], **options: Any) -> Engine:
    """One whose cache holds at least one request of any length that is drawn."""
    blocks = load["tokens"] // load["settings"].block_tokens
    return Engine(load["settings"], kv_blocks=blocks, step=linear, plans_ahead=load["plans_ahead"], **options)


@given(loads, requests)
def test_every_request_gets_its_tokens_in_order_within_the_limits(
    load: dict[str, Any], arrivals: list[Arrival]
) -> None:
    log: list[StepRecord] = []
    played = engine(load, log=log)
    blocks = played.blocks.free
    done = replay(arrivals, played)
    assert [(each.arrival_s, each.prompt_tokens, each.output_tokens) for each in done] == arrivals
    for each in done:
        assert each.made_tokens == each.output_tokens
        assert each.arrival_s <= each.scheduled_s < each.first_token_s <= each.last_token_s < inf
        assert (each.first_token_s == each.last_token_s) == (each.output_tokens == 1)
    assert played.blocks.free == blocks
    assert (played.schedule.running, played.schedule.waiting) == (0, 0)
    for step in log:
        assert 0 < step.running <= load["settings"].max_sequences
        assert 0 < step.decodes + step.prompt_tokens <= load["settings"].batched_tokens
        assert 0 <= step.free_blocks < blocks
        assert step.context_tokens <= blocks * load["settings"].block_tokens
    assert all(a.begun_s + a.seconds <= b.begun_s + 1e-9 for a, b in pairwise(log))


@given(loads, requests)
def test_each_token_is_computed_once_unless_it_is_preempted(load: dict[str, Any], arrivals: list[Arrival]) -> None:
    log: list[StepRecord] = []
    done = replay(arrivals, engine(load, log=log))
    again = sum(each.preemptions for each in done)
    prompts = sum(each.prompt_tokens for each in done)
    answers = sum(each.output_tokens for each in done)
    read = sum(step.prompt_tokens for step in log)
    decoded = sum(step.decodes * step.steps for step in log)
    if not again:
        assert (read, decoded) == (prompts, answers - len(done))
    # A token comes with each decode and with each prompt that was read to its end.
    assert answers - len(done) - again <= decoded <= answers - len(done)
    assert read >= prompts


@given(loads, requests)
def test_jumping_over_steps_changes_nothing(load: dict[str, Any], arrivals: list[Arrival]) -> None:
    jumped, stepped = (replay(arrivals, engine(load, jumps=jumps)) for jumps in (True, False))
    for one, other in zip(jumped, stepped, strict=True):
        assert one.preemptions == other.preemptions
        assert one.scheduled_s == pytest.approx(other.scheduled_s)
        assert one.first_token_s == pytest.approx(other.first_token_s)
        assert one.last_token_s == pytest.approx(other.last_token_s)


@given(loads, requests)
def test_the_same_load_gives_the_same_times(load: dict[str, Any], arrivals: list[Arrival]) -> None:
    one, other = (replay(arrivals, engine(load)) for _ in range(2))
    assert [each.last_token_s for each in one] == [each.last_token_s for each in other]


@given(loads, requests)
def test_first_tokens_come_in_the_order_of_arrival_where_nothing_is_preempted(
    load: dict[str, Any], arrivals: list[Arrival]
) -> None:
    done = replay(arrivals, engine(load))
    if not any(each.preemptions for each in done):
        firsts = [each.first_token_s for each in done]
        assert firsts == sorted(firsts)


@given(loads, requests, st.lists(st.floats(0, 2), max_size=20))
def test_looking_on_changes_nothing(load: dict[str, Any], arrivals: list[Arrival], looks_s: list[float]) -> None:
    """`settle` at any moments between, as whoever asks for the state does."""
    alone = replay(arrivals, engine(load))
    watched, seen = engine(load), []
    moments = sorted(
        [(at_s, 0, None) for at_s in looks_s] + [(one[0], 1, one) for one in arrivals], key=lambda one: one[:2]
    )
    for at_s, _, arrival in moments:
        if arrival is None:
            watched.settle(at_s)
            continue
        watched.advance(at_s)
        seen.append(Sequence(arrival_s=at_s, prompt_tokens=arrival[1], output_tokens=arrival[2]))
        watched.add(seen[-1])
    watched.advance()
    for one, other in zip(alone, seen, strict=True):
        assert one.first_token_s == pytest.approx(other.first_token_s)
        assert one.last_token_s == pytest.approx(other.last_token_s)
    assert watched.schedule.waiting_tokens == 0


def test_who_sends_a_prompt_says_what_of_it_waits_to_be_read() -> None:
    one = Engine(settings(), kv_blocks=100, step=linear)
    for read_tokens in (0, 5):
        one.add(Sequence(arrival_s=0.0, prompt_tokens=12, output_tokens=1, read_tokens=read_tokens))
    assert one.schedule.waiting_tokens == 12 + 5
    one.advance()
    assert one.schedule.waiting_tokens == 0


def test_a_prompt_that_begins_as_another_did_is_read_from_there() -> None:
    found = []
    one = Engine(settings(batched_tokens=8), kv_blocks=100, step=linear, prefixes=PrefixCache(4))
    for at_s, prefix in ((0.0, (1, 2, 3)), (10.0, (1, 2, 9)), (20.0, (7, 2, 3)), (30.0, (1, 2, 3))):
        sequence = Sequence(arrival_s=at_s, prompt_tokens=12, output_tokens=1, prefix=prefix)
        one.add(sequence)
        one.advance()
        found.append(one.schedule.found_tokens)
    # The last token is read in any case, and with it its block.
    assert found == [0, 8, 8, 8 + 8]
    assert sequence.found_tokens == 8
    assert (one.blocks.cached_tokens((7, 2, 8)), one.blocks.cached_tokens((8,))) == (8, 0)
    assert one.schedule.read_tokens == 4 * 12 - found[-1]


def test_sequences_that_begin_alike_hold_the_same_blocks() -> None:
    """Ten prompts of 100 tokens, 96 of them the same, in a cache of 50 blocks of 4 tokens."""
    one = Engine(settings(max_sequences=10, batched_tokens=200), kv_blocks=50, step=linear, prefixes=PrefixCache(4))
    common = tuple(range(24))
    sequences = [Sequence(arrival_s=0.0, prompt_tokens=100, output_tokens=2, prefix=common) for _ in range(10)]
    one.add(sequences[0])
    one.advance(one.changes_s + 1e-9)
    for sequence in sequences[1:]:
        one.add(sequence, now_s=one.now_s)
    one.advance()
    assert [sequence.found_tokens for sequence in sequences] == [0] + 9 * [96]
    assert sum(sequence.preemptions for sequence in sequences) == 0
    assert one.blocks.free == 50


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 40), st.integers(1, 12)), min_size=1, max_size=25),
    st.integers(14, 60),
)
def test_blocks_that_are_shared_are_all_given_back(requests: list[tuple[int, int, int]], kv_blocks: int) -> None:
    one = Engine(settings(max_sequences=4, batched_tokens=8), kv_blocks=kv_blocks, step=linear, prefixes=PrefixCache(8))
    for number, (family, prompt, answer) in enumerate(requests):
        at_s = 0.02 * number
        prefix = tuple(10 * family + block for block in range(prompt // 8))
        one.advance(at_s)
        one.add(Sequence(arrival_s=at_s, prompt_tokens=prompt, output_tokens=answer, prefix=prefix))
        assert 0 <= one.blocks.free <= kv_blocks
    done = one.advance()
    assert one.blocks.free == kv_blocks
    assert len({sequence.last_token_s for sequence in done}) >= 1
    for sequence in done:
        assert sequence.found_tokens < sequence.prompt_tokens


def test_prefixes_that_were_given_up_longest_ago_go_first_and_of_one_its_end() -> None:
    cache = PrefixCache(4)
    for prefix in ((1, 2), (3, 4), (5,)):
        assert cache.hold(prefix) == len(prefix)
        assert cache.release(prefix) == len(prefix)
    cache.shrink(4)
    assert [cache.found(prefix) for prefix in ((1, 2), (3, 4), (5,))] == [1, 2, 1]
    cache.hold((3,))
    cache.shrink(0)
    assert [cache.found(prefix) for prefix in ((1, 2), (3, 4), (5,))] == [0, 1, 0]
    assert (cache.hold((3,)), cache.release((3,)), cache.release((3,))) == (0, 0, 1)


def test_blocks_of_prefixes_are_whole_ones_of_the_cache() -> None:
    with pytest.raises(ValueError, match="whole 4-token blocks, got 6 tokens"):
        Engine(settings(), kv_blocks=100, step=linear, prefixes=PrefixCache(6))
