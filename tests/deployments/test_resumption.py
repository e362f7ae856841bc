"""Does vLLM's front half, told what another engine said, say the rest to the letter?

The core is left out: the tests say which tokens it makes.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.continuation import SoFar, go_on, rest
from deployments.frames import Delta, Submit
from deployments.resumption import Resumption

pytestmark = pytest.mark.slow

TEXT = "«é» 🚰 日本. The end, the END"
PROMPT = list("naïve 日".encode())


class FrontHalf:
    """As much of an AsyncLLM as it takes to make text of ids."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoTokenizer
        from vllm.v1.engine.output_processor import OutputProcessor

        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.output_processor = OutputProcessor(self.tokenizer, log_stats=False)
        self.resumption = Resumption(self)
        self.outputs: list[Any] = []
        self.prompts: list[list[int]] = []
        self.orders: list[int] = []

    def put(self, output: Any) -> None:
        """As a queue of outputs."""
        self.outputs.append(output)

    async def add_request(self, name: str, prompt: dict[str, Any], sampling: Any, priority: int = 0) -> str:
        from vllm.v1.engine import EngineCoreRequest

        ids = prompt["prompt_token_ids"]
        self.prompts.append(ids)
        self.orders.append(priority)
        request = EngineCoreRequest(f"{name}-1", ids, None, sampling, None, 0.0, None, None, None, external_req_id=name)
        queue: Any = self
        self.output_processor.add_request(request, None, None, 0, queue)
        return request.request_id

    def make(self, key: str, token_id: int, finish: str | None) -> bool:
        """Takes a token from the core; False when the front half found the end itself."""
        from vllm.v1.engine import EngineCoreOutput, FinishReason

        reason = None if finish is None else FinishReason[finish.upper()]
        self.output_processor.process_outputs([EngineCoreOutput(key, [token_id], finish_reason=reason)])
        return self.output_processor.has_request(key)


async def said(
    front: FrontHalf, ids: Sequence[int], parameters: dict[str, Any], cuts: Sequence[int]
) -> tuple[list[Delta], SoFar]:
    """What a reader gets of these ids when the engine is lost at each of the cuts."""
    from vllm.sampling_params import RequestOutputKind, SamplingParams

    def sampling(asked: dict[str, Any]) -> Any:
        return SamplingParams.from_optional(**asked, output_kind=RequestOutputKind.DELTA)

    asked = {"max_tokens": len(ids)} | parameters
    order, so_far = Submit(1, 0, PROMPT, asked, True, None), SoFar()
    key = await front.add_request("0", {"prompt_token_ids": PROMPT}, sampling(asked))
    deltas: list[Delta] = []
    for place, token_id in enumerate(ids):
        if place in cuts:
            front.output_processor.abort_requests([key], internal=True)
            order = go_on(order, so_far)
            left = sampling(rest(asked, place))
            prompt = {"prompt_token_ids": PROMPT + order.said_ids}
            key = await front.resumption.add_request(str(order.attempt), prompt, left, order, sampling(asked), place)
            assert front.orders[-1] == place
            assert left.max_tokens == len(ids) - place
        front.outputs.clear()
        goes_on = front.make(key, token_id, "length" if place == len(ids) - 1 else None)
        for choice in (choice for output in front.outputs for choice in output.outputs):
            delta = Delta(1, 0, 0, choice.text, list(choice.token_ids), choice.finish_reason, choice.stop_reason)
            so_far.add(delta)
            deltas.append(delta)
        if not goes_on:
            break
    front.outputs.clear()
    return deltas, so_far


@pytest.fixture(scope="module")
def front(tokenizer_folder: Path) -> FrontHalf:
    return FrontHalf(tokenizer_folder)


def joined(deltas: Sequence[Delta]) -> tuple[str, list[int], str | None, Any]:
    ids = [token_id for delta in deltas for token_id in delta.token_ids]
    return "".join(delta.text for delta in deltas), ids, deltas[-1].finish, deltas[-1].stop


letters = st.sampled_from(list("Thé日🚰. end"))
stops = st.lists(st.sampled_from(["end", "日本", "é»", " ", "the EN", "🚰 日", "nowhere"]), max_size=3)


@given(
    text=st.text(letters, min_size=1, max_size=20) | st.just(TEXT),
    noise=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 256)), max_size=3),
    stop=stops,
    kept=st.booleans(),
    least=st.integers(0, 12),
    cuts=st.sets(st.integers(1, 60), max_size=4),
)
def test_a_cut_changes_nothing(
    front: FrontHalf, text: str, noise: list[tuple[int, int]], stop: list[str], kept: bool, least: int, cuts: set[int]
) -> None:
    """Ids that make no characters among them."""
    ids = front.tokenizer.encode(text, add_special_tokens=False)
    for place, token_id in noise:
        ids.insert(place, token_id)
    asked = {"stop": stop, "include_stop_str_in_output": kept, "min_tokens": min(least, len(ids))}
    whole, _ = asyncio.run(said(front, ids, asked, ()))
    broken, so_far = asyncio.run(said(front, ids, asked, tuple(cuts)))
    assert joined(broken) == joined(whole)
    assert so_far.characters == len(joined(whole)[0])


def test_every_cut_of_a_text_with_a_stop_string_held_back(front: FrontHalf) -> None:
    ids = front.tokenizer.encode(TEXT, add_special_tokens=False)
    whole, _ = asyncio.run(said(front, ids, {"stop": ["END", "the other"]}, ()))
    assert joined(whole)[0].endswith(TEXT.removesuffix("END"))
    for place in range(1, len(ids)):
        broken, _ = asyncio.run(said(front, ids, {"stop": ["END", "the other"]}, (place,)))
        assert joined(broken) == joined(whole)
    assert front.prompts[-1][: len(PROMPT)] == PROMPT


def test_ids_that_go_together_follow_those_that_were_said(tokenizer_folder: Path) -> None:
    """With an interval in the engine's arguments, vLLM says the first id alone, then those of several steps at once."""
    front = FrontHalf(tokenizer_folder)
    front.output_processor.stream_interval = 5
    ids = front.tokenizer.encode(TEXT, add_special_tokens=False)
    whole, _ = asyncio.run(said(front, ids, {}, ()))
    assert [len(delta.token_ids) for delta in whole[:3]] == [1, 5, 5]
    broken, _ = asyncio.run(said(front, ids, {}, (6, 16)))
    assert joined(broken) == joined(whole)
    assert joined(broken)[1] == ids
