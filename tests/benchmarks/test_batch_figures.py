"""Do the benchmarks of batches reckon what they say?"""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from benchmarks import batch_beside, batch_order
from benchmarks.batch_beside import Beside, Waits, table, users, waits
from benchmarks.batch_order import Pass, ratio
from benchmarks.live_fleet import Told
from benchmarks.pace import STEP_S


def beside(p95_s: float, batch_tokens_per_s: float) -> Beside:
    return Beside(
        round=1,
        load=0.5,
        alone=Waits(requests=9, p50_s=0.08, p95_s=0.1),
        beside=Waits(requests=9, p50_s=0.08, p95_s=p95_s),
        users_tokens_per_s=300.0,
        batch_tokens_per_s=batch_tokens_per_s,
        most_tokens_per_s=600.0,
        batch_s=100.0,
    )


def test_what_a_batch_costs_and_uses_is_told_with_its_spread() -> None:
    found = [beside(0.11, 270.0), beside(0.12, 240.0), beside(0.10, 300.0)]
    assert [one.cost for one in found] == pytest.approx([1.1, 1.2, 1.0])
    assert [one.used for one in found] == pytest.approx([0.9, 0.8, 1.0])
    assert table(found).splitlines()[-1] == ("| 0.50 | 0.100, 0.110 | 1.10 (1.00 to 1.20) | 0.90 (0.80 to 1.00) |")


@pytest.mark.parametrize("load", [0.25, 0.5])
def test_users_take_their_share_of_the_slots(load: float) -> None:
    trace = users(load, span_s=600.0, seed=1)
    slots = batch_beside.REPLICAS * batch_beside.SLOTS / STEP_S
    assert trace.output_tokens.sum() / trace.at_s[-1] / slots == pytest.approx(load, rel=0.1)
    told = [Told(first_s=at_s + 0.1, last_s=at_s + 1.0) for at_s in trace.at_s]
    assert waits(trace, told) == Waits(requests=len(told), p50_s=pytest.approx(0.1), p95_s=pytest.approx(0.1))


def test_lines_that_begin_alike_lie_apart_in_the_file() -> None:
    prompts = [str(line["prompt"]) for line in batch_order.lines(seed=3)]
    beginnings = [prompt.partition("\n")[0] for prompt in prompts]
    assert len(set(prompts)) == len(prompts)
    assert set(Counter(beginnings).values()) == {batch_order.LINES_EACH}
    assert np.mean([one == other for one, other in pairwise(beginnings)]) < 0.3


def test_prompts_count_whether_they_were_read_or_found() -> None:
    slow = Pass(seconds=20.0, prompt_tokens=900, cached_tokens=0, output_tokens=100)
    fast = Pass(seconds=10.0, prompt_tokens=900, cached_tokens=800, output_tokens=100)
    assert ratio({"as_batch": fast, "in_file_order": slow}) == 2.0
