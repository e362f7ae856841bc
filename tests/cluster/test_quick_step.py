"""Is the quick way to a step's seconds the same as the long one?"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.device_facts import BY_NAME
from cluster.quick_step import quick_step_seconds
from cluster.speed import step_seconds, unmeasured
from cluster.step_time import Layout
from cluster.step_work import Chunk
from tests.cluster.published import published

chunks = st.lists(
    st.builds(Chunk, new_tokens=st.integers(1, 8_192), context_tokens=st.floats(0, 100_000), count=st.integers(1, 256)),
    min_size=1,
    max_size=4,
)


@pytest.mark.parametrize("name", ["granite-3.3-8b", "pythia-1.4b", "gemma-2-9b", "mixtral-8x22b"])
@pytest.mark.parametrize(("device", "tensor"), [("h100", 1), ("l4", 2)])
def test_both_say_the_same(name: str, device: str, tensor: int) -> None:
    model, layout = published(name).model, Layout(tensor=tensor)
    facts = BY_NAME[device]
    speeds = unmeasured(model, facts, "bf16")
    quick = quick_step_seconds(model, facts, speeds, layout=layout)
    slow = step_seconds(model, facts, speeds, layout=layout)

    @given(chunks)
    def same(step: list[Chunk]) -> None:
        assert quick(step) == pytest.approx(slow(step), rel=1e-9)

    same()
