"""Does each law do what its system documents, and does the oracle need as few as it says?"""

from typing import Any

import numpy as np
import pytest

from autoscaling import Fleet, ReplicaLoad, StepCosts, Traffic
from simulation.baselines import BASELINES
from simulation.oracle import needed, oracle
from simulation.policy import Observed
from simulation.trace import Trace

COSTS = StepCosts(step_s=0.01, sequence_s=0.0005, prompt_token_s=0.0001)


class Served:
    """Percentiles as a story tells them."""

    def __init__(self, ttft_s: float = 0.0, token_s: float = 0.0) -> None:
        self.times = ttft_s, token_s

    def percentile(self, share: float, *, last_s: float) -> tuple[float, float]:
        return self.times


class Story:
    """A fleet that gets at once what a law says, or keeps `starting` of it."""

    def __init__(self, name: str, replicas: int = 1, knob: float | None = None) -> None:
        self.policy, self.replicas, self.memory, self.now_s = BASELINES[name].policy(knob), replicas, None, 0.0

    def run(self, seconds: float, *, starting: int = 0, served: Served | None = None, **load: Any) -> int:
        """The same load for so long; the replicas at its end."""
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            self.now_s += 1.0
            decided, self.memory = self.policy(
                Observed(fleet=self._fleet(starting, **load), served=served or Served()), self.memory
            )
            self.replicas = decided.replicas
        return self.replicas

    def _fleet(
        self, starting: int, *, ongoing: float = 0, waiting: int = 0, queued: int = 0, per_s: float = 0
    ) -> Fleet:
        serving = max(0, self.replicas - starting)
        each = ongoing / serving if serving else 0
        return Fleet(
            now_s=self.now_s,
            replicas=tuple(
                ReplicaLoad(
                    id=str(number),
                    running_requests=int(each),
                    waiting_requests=waiting,
                    waiting_tokens=1_000 * waiting,
                    slots=64,
                    kv_tokens=10_000,
                    kv_used_tokens=100 * int(each),
                    costs=COSTS,
                )
                for number in range(serving)
            ),
            starting=min(starting, self.replicas),
            queued_requests=queued,
            traffic=Traffic(long_requests=60 * per_s, prompt_tokens=1_000),
            min_replicas=0,
            max_replicas=100,
        )


def test_ray_goes_up_after_30_s_and_down_after_600_s() -> None:
    story = Story("ray", 2)
    assert story.run(29, ongoing=8) == 2
    assert story.run(3, ongoing=8) == 4
    assert story.run(599, ongoing=0) == 4
    assert story.run(35, ongoing=0) == 0
    assert story.run(1, queued=1) == 1


def test_keda_asks_for_a_replica_for_each_5_that_wait_and_keeps_it_for_300_s() -> None:
    story = Story("keda")
    assert story.run(16, queued=12) == 3
    assert story.run(290) == 3
    assert story.run(30) == 1


def test_kpa_at_most_doubles_and_never_goes_down_while_it_panics() -> None:
    story = Story("kpa", 1, knob=4)
    assert story.run(9, ongoing=40) == 2
    assert story.run(10, ongoing=40) == 4
    calm = Story("kpa", 4, knob=4)
    assert calm.run(400, ongoing=16) == 4
    assert calm.run(60, ongoing=160) >= 20, "the mean of 180 s alone would say 16 at most"
    assert calm.run(60, ongoing=0) >= 20
    assert calm.run(600, ongoing=0) < 20


def test_apa_leaves_alone_what_is_within_a_tenth() -> None:
    assert Story("apa", 4, knob=4).run(400, ongoing=16) == 4
    assert Story("apa", 10, knob=4).run(400, ongoing=40) == 10
    assert Story("apa", 4, knob=4).run(200, ongoing=32) > 4
    assert Story("apa", 10, knob=4).run(1_000, ongoing=20) == 5


def test_llmd_goes_up_by_the_strain_and_down_by_one_each_120_s() -> None:
    story = Story("llmd", 4)
    assert story.run(60, served=Served(ttft_s=1.5)) == 4, "a strain of 0.5 is within the bounds"
    assert 4 < story.run(70, served=Served(ttft_s=3.0)) <= 8, "twice as many in 60 s at most"
    assert story.run(300, served=Served(ttft_s=6.0)) > 16
    down = Story("llmd", 8)
    assert down.run(179, served=Served(ttft_s=0.3)) <= 8
    before = down.run(30, served=Served(ttft_s=0.3))
    assert down.run(120, served=Served(ttft_s=0.3)) == before - 1


def test_dynamo_moves_by_one_and_not_while_replicas_start() -> None:
    story = Story("dynamo", 2)
    assert story.run(4, ongoing=2, waiting=6) == 3
    assert story.run(20, ongoing=2, waiting=6, starting=1) == 3
    assert Story("dynamo", 3).run(4, ongoing=3) == 2
    assert Story("dynamo", 3).run(6, ongoing=190) == 3, "a step of 42 ms at 3/2 of the load is too near to 50 ms"


def test_skyserve_goes_up_after_300_s_and_down_after_1200_s() -> None:
    story = Story("skyserve")
    assert story.run(290, per_s=5) == 1
    assert story.run(50, per_s=5) == 3
    assert story.run(1_190, per_s=1) == 3
    assert story.run(50, per_s=1) == 1


@pytest.mark.parametrize("name", BASELINES)
def test_whatever_a_law_says_from_nothing_some_replica_comes(name: str) -> None:
    assert Story(name, 0).run(40, queued=3, per_s=1) >= 1


def test_the_oracle_asks_a_start_before_and_lets_go_of_what_can_be_back() -> None:
    at_s = np.concatenate([np.arange(0, 100, 0.1), np.arange(1_000, 1_100, 0.02)])
    burst = Trace(
        at_s=at_s,
        prompt_tokens=np.full(len(at_s), 500, dtype=np.int32),
        output_tokens=np.ones(len(at_s), dtype=np.int32),
    )
    needs = needed(burst, COSTS, share=0.8, margin=1.0)
    assert (needs[50], needs[500], needs[1_050]) == (1, 0, 4)
    policy = oracle(burst, COSTS, token_s=0.05, startup_s=60, margin=1.0)

    def at(now_s: float) -> int:
        fleet = Fleet(now_s=now_s, replicas=(), starting=0, queued_requests=0, min_replicas=0, max_replicas=9)
        return policy(Observed(fleet=fleet, served=Served()), None)[0].replicas

    assert [at(now_s) for now_s in (50, 200, 930, 945, 1_050)] == [1, 0, 0, 4, 4]
