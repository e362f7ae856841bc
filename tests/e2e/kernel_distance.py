"""How far is a compiled bfloat16 engine from float32 on short chats, and does the numbers check agree?

`python -m tests.e2e.kernel_distance FOLDER` prints one JSON object. Distances are mean |difference| of
log-probabilities in nats, on answers that transformers gave in float32: a near tie turns a greedy answer, no distance.
"""

import asyncio
import json
import sys
from pathlib import Path
from statistics import mean

from deployments import numbers_check, reference
from deployments.engine import CHECK_CHATS
from deployments.fleet import Model
from deployments.vllm_engine import VllmEngine

COUNTRIES = ("France", "Spain", "Japan", "Italy", "Egypt", "Peru", "Kenya", "Norway", "Greece", "Canada")
CHATS = tuple(f"What is the capital of {country}?" for country in COUNTRIES) + tuple(
    f"Tell me something about {country}." for country in COUNTRIES
)
ANSWER_TOKENS = 24
ENGINE = {"enforce_eager": False, "dtype": "bfloat16", "max_model_len": 2048}


def trusted(folder: Path, chats: list[list[int]]) -> list[tuple[list[int], list[float]]]:
    """transformers' greedy answer to each chat in float32, and how likely it finds each token of it."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    exact = {"max_new_tokens": ANSWER_TOKENS, "min_new_tokens": ANSWER_TOKENS, "do_sample": False, "pad_token_id": 0}
    answers = []
    with torch.inference_mode():
        for ids in chats:
            whole = model.generate(torch.tensor([ids]), **exact)
            rows = model(whole).logits[0, len(ids) - 1 : -1].log_softmax(dim=-1)
            answer = whole[0, len(ids) :]
            answers.append((answer.tolist(), rows.gather(1, answer[:, None])[:, 0].tolist()))
    return answers


async def measure(folder: Path) -> dict[str, object]:
    """The check's verdict, and distances of which it knows nothing: prefill's, and decode's while tokens agree."""
    engine = VllmEngine.start(Model(name="compiled", source=str(folder), engine=ENGINE))
    try:
        prompts = [engine.encode_chat(text) for text in CHECK_CHATS]
        try:
            await numbers_check.check(engine, prompts, reference.load(folder))
            refused = None
        except numbers_check.WrongNumbers as error:
            refused = str(error)
        chats = [engine.encode_chat(text) for text in CHATS]
        prefill, decode = [], []
        for ids, (answer, expected) in zip(chats, trusted(folder, chats), strict=True):
            prefill.append(numbers_check.mean_distance((await engine.logprobs(ids + answer))[len(ids) - 1 :], expected))
            tokens, found = await engine.continue_greedily(ids, ANSWER_TOKENS)
            same = next((at for at, pair in enumerate(zip(tokens, answer, strict=True)) if pair[0] != pair[1]), None)
            if same != 0:
                decode.append(numbers_check.mean_distance(found[:same], expected[:same]))
        tolerance = numbers_check.TOLERANCE["bfloat16"]
        return {
            "refused": refused,
            "prefill": mean(prefill),
            "decode": mean(decode),
            "tolerance": tolerance,
            "answers_that_begin_alike": len(decode),
            "answers": len(chats),
        }
    finally:
        engine.shutdown()


if __name__ == "__main__":
    print(json.dumps(asyncio.run(measure(Path(sys.argv[1])))))
