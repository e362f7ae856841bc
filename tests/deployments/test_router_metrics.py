"""Does a router tell the scaler what came and what users got of it?"""

import pytest

from autoscaling import Targets
from deployments.router_metrics import RouterMetrics
from deployments.sender import Sender
from routing import Tier

GENEROUS = Targets(ttft_s=100.0, token_s=100.0)
NEVER = Targets(ttft_s=1e-9, token_s=100.0)
SLOW = Targets(ttft_s=100.0, token_s=1e-9)


@pytest.mark.parametrize(("targets", "missed"), [(GENEROUS, 0), (NEVER, 1), (SLOW, 1)])
def test_a_streamed_answer_is_judged_by_its_first_token_and_by_the_others(targets: Targets, missed: int) -> None:
    metrics = RouterMetrics(targets)
    metered = metrics.watch("tiny", 50)
    metered.tokens(1)
    metered.tokens(4)
    metered.end("ok")
    traffic = metrics.traffic("tiny")
    assert (traffic.short_requests, traffic.short_tokens, traffic.output_tokens) == (1, 50, 5)
    assert (traffic.judged_requests, traffic.missed_requests) == (1, missed)


def test_an_answer_that_came_whole_has_the_time_of_all_its_tokens() -> None:
    metrics = RouterMetrics(Targets(ttft_s=1e-9, token_s=100.0))
    metered = metrics.watch("tiny", 50)
    metered.tokens(5)
    metered.end("ok")
    assert metrics.traffic("tiny").missed_requests == 0


def test_nobody_waits_for_what_is_in_tier_batch() -> None:
    metrics = RouterMetrics(NEVER)
    for outcome in ("ok", "failed"):
        metered = metrics.watch("tiny", 50, Sender(tier=Tier.BATCH))
        metered.tokens(1)
        metered.end(outcome)
    assert metrics.traffic("tiny").missed_requests == 1, "what failed"


def test_what_failed_was_missed_and_what_was_left_early_says_nothing() -> None:
    metrics = RouterMetrics(GENEROUS)
    metrics.watch("tiny", 50).end("failed")
    metrics.watch("tiny", 50).end("cancelled")
    traffic = metrics.traffic("tiny")
    assert (traffic.judged_requests, traffic.missed_requests, traffic.output_tokens) == (1, 1, 0)
    assert b'headrace_missed_total{model="tiny"} 1.0' in metrics.text([])


def test_who_leaves_after_the_target_has_passed_was_missed() -> None:
    metrics = RouterMetrics(NEVER)
    metrics.watch("tiny", 50).end("cancelled")
    assert metrics.traffic("tiny").missed_requests == 1
    assert metrics.traffic("other").judged_requests == 0
