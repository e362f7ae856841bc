"""Do other routers' rules choose as their own documents and tests say?"""

from collections import Counter
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from simulation.choosers import (
    CHOOSERS,
    Asked,
    Chooser,
    Seen,
    dynamo,
    least_tokens,
    llm_d,
    power_of_two,
    prefix_only,
    round_robin,
)

IDLE = Seen(requests=0, waiting=0, tokens=0, unread_tokens=0, held_blocks=0, kv_share=0.0)


def chosen(chooser: Chooser, *seen: Seen, prompt: int = 160, number: int = 0, seed: int = 0) -> int:
    return chooser(Asked(prompt_tokens=prompt, number=number), seen, Random(seed))


def draws(chooser: Chooser, *seen: Seen) -> Counter[int]:
    return Counter(chosen(chooser, *seen, seed=seed) for seed in range(300))


def like(**what: Any) -> Seen:
    return replace(IDLE, **what)


@pytest.mark.parametrize("chooser", [one for name, one in CHOOSERS.items() if name != "round_robin"])
def test_equal_replicas_are_drawn_by_lot(chooser: Chooser) -> None:
    counts = draws(chooser, IDLE, IDLE, IDLE)
    assert min(counts[place] for place in range(3)) > 60


def test_round_robin_goes_round() -> None:
    assert [chosen(round_robin, IDLE, IDLE, IDLE, number=number) for number in range(6)] == [0, 1, 2, 0, 1, 2]


def test_of_two_drawn_by_lot_the_one_with_fewer_requests_gets_it() -> None:
    """Ray: the busiest of three never, the others as often as pairs hold them."""
    counts = draws(power_of_two, like(requests=9), like(requests=5), like(requests=1))
    assert counts[0] == 0
    assert counts[2] / 300 == pytest.approx(2 / 3, abs=0.1)
    assert chosen(power_of_two, IDLE) == 0


def test_least_tokens_does_not_count_requests() -> None:
    assert chosen(least_tokens, like(requests=1, tokens=900), like(requests=5, tokens=500)) == 1


def test_a_prefix_is_followed_whatever_waits_there() -> None:
    """Ray LLM: the threshold of imbalance is infinite unless it is set."""
    warm = like(requests=500, sent_before_tokens=16)
    assert chosen(prefix_only, IDLE, warm) == 1
    assert chosen(prefix_only, like(sent_before_tokens=32), warm) == 0


def test_below_a_tenth_of_the_prompt_who_was_sent_the_least_gets_it() -> None:
    short = like(sent_tokens=500, sent_before_tokens=15)
    assert chosen(prefix_only, short, like(sent_tokens=400)) == 1
    assert chosen(prefix_only, short, like(sent_tokens=600)) == 0
    equal = like(sent_tokens=400)
    assert chosen(prefix_only, replace(equal, requests=2), equal, short) == 1


def test_llm_d_weighs_queue_cache_and_prefix_2_to_2_to_3() -> None:
    # Queues from 0 to 10: 2 for none, 1 for 5, 0 for 10.
    assert chosen(llm_d, like(waiting=10), like(waiting=5), like(waiting=0)) == 2
    # A whole prefix is worth 3, the shortest queue 2, an empty cache 2.
    assert chosen(llm_d, like(waiting=10, cached_tokens=160), IDLE) == 0
    assert chosen(llm_d, like(waiting=10, cached_tokens=96), IDLE) == 1
    assert chosen(llm_d, like(kv_share=0.6, cached_tokens=80), IDLE) == 0
    assert chosen(llm_d, like(kv_share=0.8, cached_tokens=80), IDLE) == 1


def test_llm_d_takes_equal_queues_for_the_best() -> None:
    """queue.go: equal queues score a neutral 1, however long they are."""
    assert chosen(llm_d, like(waiting=7, kv_share=0.2), like(waiting=7, kv_share=0.1)) == 1


def test_dynamo_s_documents_choose_the_second_of_three() -> None:
    """The router's guide: a prompt of 10 blocks, of which 2, 5 and 8 are cached, where 10, 5 and 9 would be held."""
    workers = [
        like(cached_tokens=16 * cached, held_blocks=held, new_blocks=0) for cached, held in ((2, 10), (5, 5), (8, 9))
    ]
    assert chosen(dynamo, *workers, prompt=160) == 1


def test_dynamo_counts_what_is_to_be_read_there_already() -> None:
    assert chosen(dynamo, like(unread_tokens=320), like(held_blocks=19)) == 1
    assert chosen(dynamo, like(unread_tokens=320), like(held_blocks=21)) == 0
    # What was cached of prompts that are read there never makes a cost below 0.
    assert chosen(dynamo, like(cached_tokens=500, held_blocks=3), like(cached_tokens=160, held_blocks=2)) == 1
