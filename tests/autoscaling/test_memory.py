"""Is nothing lost when the memory is stored, and does it stay small?"""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaling import Capacity, Memory, StepCosts, Wish

CAPACITY = Capacity(slots=8.0, costs=StepCosts(step_s=0.01, sequence_s=0.001, prompt_token_s=1e-4))

pasts = st.lists(st.tuples(st.floats(0, 5), st.integers(0, 50)), max_size=80)


def remember(past: list[tuple[float, int]], *, hold_s: float = 60.0) -> tuple[Memory, list[Wish]]:
    memory, now_s, wishes = Memory(capacity=CAPACITY, asked_s=(1.0,), started_s=20.0), 0.0, []
    for pause_s, replicas in past:
        now_s += pause_s
        wishes.append(Wish(at_s=now_s, replicas=replicas))
        memory = memory.with_wish(wishes[-1], present=0, hold_s=hold_s)
    return memory, wishes


@given(pasts)
def test_a_memory_survives_json(past: list[tuple[float, int]]):
    memory, _ = remember(past)
    assert Memory.from_json(json.loads(json.dumps(memory.to_json()))) == memory


def test_an_empty_memory_survives_json():
    assert Memory.from_json(json.loads(json.dumps(Memory().to_json()))) == Memory()


@given(pasts.filter(bool), st.floats(0, 120))
def test_the_largest_wish_is_the_maximum_over_the_hold(past: list[tuple[float, int]], hold_s: float):
    memory, wishes = remember(past, hold_s=hold_s)
    now_s = wishes[-1].at_s
    recent = [wish.replicas for wish in wishes if wish.at_s > now_s - hold_s or wish is wishes[-1]]
    assert memory.largest_wish.replicas == max(recent)


@given(pasts.filter(bool))
def test_only_falling_wishes_are_kept(past: list[tuple[float, int]]):
    memory, _ = remember(past)
    replicas = [wish.replicas for wish in memory.wishes]
    assert replicas == sorted(set(replicas), reverse=True)


@pytest.mark.parametrize(
    "saved",
    [
        {},
        Memory().to_json() | {"wishes": 3},
        Memory().to_json() | {"wishes": [["x", 1]]},
        {"wishes": [], "slots": None},
    ],
)
def test_something_else_is_not_taken_for_a_memory(saved: dict):
    with pytest.raises((KeyError, TypeError, ValueError)):
        Memory.from_json(saved)
