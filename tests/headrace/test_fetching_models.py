"""The two models that are made here, for real. They stay in the user's cache: made once on a machine."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments import reference
from headrace.fetching import references, resolve, verify
from headrace.fetching.quiet import one_thread

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),  # the first run on a machine trains one and converts the other
]


@pytest.fixture(autouse=True)
def _beside_other_tests() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def smollm2() -> Path:
    return resolve("smollm2")


@pytest.fixture(scope="module")
def tiny() -> Path:
    return resolve("tiny")


def answer(folder: Path, question: str, count: int) -> tuple[list[int], str]:
    """The model's greedy answer, by transformers: token ids and text."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    told = model.generate(**asked, max_new_tokens=count, do_sample=False)[0, asked["input_ids"].shape[1] :]
    return told.tolist(), tokenizer.decode(told, skip_special_tokens=True)


def test_smollm2_knows_the_capital_of_france_and_ends_its_turn(smollm2: Path):
    token_ids, text = answer(smollm2, "What is the capital of France?", 32)
    assert "Paris" in text
    assert token_ids[-1] == 2


def test_smollm2_renders_a_chat_as_it_was_trained(smollm2: Path):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    chat = [{"role": "user", "content": "Hi"}]
    assert tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
    special = [tokenizer.unk_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id]
    assert special == [0, 1, 2, 2]
    assert tokenizer.convert_ids_to_tokens([0, 1, 2]) == ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


@pytest.mark.parametrize("text", [" two  spaces ▁ kept", "In 2024: 1,024", "naïve café 日本語 😀", "\ttab\n\n"])
def test_smollm2_reads_back_every_text_and_digits_one_by_one(smollm2: Path, text: str):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    token_ids = tokenizer.encode(text)
    assert tokenizer.decode(token_ids) == text
    digits = [piece for piece in tokenizer.convert_ids_to_tokens(token_ids) if any(map(str.isdigit, piece))]
    assert all(len(piece) == 1 for piece in digits)


@pytest.mark.parametrize(
    "question", ["What is the capital of France?", "Hello!", "Count to ten.", "Wie spät ist es? 今何時ですか"]
)
def test_tiny_says_as_much_as_it_is_asked_for_and_does_not_repeat_itself(tiny: Path, question: str):
    token_ids, text = answer(tiny, question, 64)
    assert len(token_ids) == 64
    assert len(set(token_ids)) >= 20
    assert len(text.split()) > 5


@pytest.mark.parametrize("name", ["smollm2", "tiny"])
def test_a_made_model_is_whole_and_its_reference_is_what_transformers_computes(name: str):
    folder = resolve(name)
    assert verify(folder) == []
    known = reference.load(folder)
    assert known is not None
    assert len(known.prompts) == len(references.CHATS)
    assert all(len(prompt.token_ids) > 150 for prompt in known.prompts)
    prompt = known.prompts[1]
    assert mean_distance(folder, prompt.token_ids, prompt.logprobs) < 1e-3


def mean_distance(folder: Path, token_ids: tuple[int, ...], logprobs: tuple[float, ...]) -> float:
    """By transformers again, but one token after the other through its KV cache, as an engine decodes."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    seen, differences = None, []
    with torch.inference_mode():
        for token_id, next_id, expected in zip(token_ids, token_ids[1:], logprobs, strict=False):
            result = model(torch.tensor([[token_id]]), past_key_values=seen, use_cache=True)
            seen = result.past_key_values
            found = result.logits[0, -1].log_softmax(dim=-1)[next_id].item()
            differences.append(abs(found - expected))
    return sum(differences) / len(differences)
