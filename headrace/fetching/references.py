"""How is a checkpoint's reference made? Log-probabilities of what writes, with transformers, in float32."""

from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.inventory import machine
from deployments import reference
from deployments.reference import Prompt, Reference, Vectors
from headrace.fetching import checkpoint, vectors
from headrace.fetching.progress import Progress, Step
from headrace.fetching.quiet import one_thread, quiet_transformers

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MOST_WEIGHTS_BYTES = 2_000_000_000
CONTINUATION_TOKENS = 32

# Several turns each: kernels that are wrong for long prompts answer short ones rightly. Four styles, so that
# most corners of a vocabulary are met: plain talk, code, other scripts, numbers.
CHATS = (
    (
        "I am planning a week in the Alps with my two children, seven and ten years old. We would "
        "like to walk a little every day, but no more than three hours, and to sleep in the same "
        "village. Where should we go?",
        "A village with a cable car is a good choice: you gain height without effort and walk down or"
        " along. Grindelwald and Zermatt in Switzerland, or Seefeld in Austria, have many easy paths.",
        "Thank you. The younger one is afraid of heights. Which of them would you choose then, what "
        "should we pack for bad weather, and how early should we start in the morning to avoid a "
        "thunderstorm?",
    ),
    (
        "This function should return the n largest words of a text, but it is slow:\n\n"
        "def largest(text, n=10):\n"
        "    counts = {}\n"
        "    for word in text.lower().split():\n"
        '        counts[word] = counts.get(word, 0) + len(word) ** 2  # "weight"\n'
        "    return sorted(counts.items(), key=lambda item: -item[1])[:n]\n\n"
        "What would you change?",
        "Use `heapq.nlargest(n, counts.items(), key=itemgetter(1))`: it need not sort everything.",
        "And if the file had 40 GB and did not fit in memory? Please show me the code, with type "
        "annotations and a short test in pytest.",
    ),
    (
        "Bitte übersetze ins Englische: „Als Gregor Samsa eines Morgens aus unruhigen Träumen "
        "erwachte, fand er sich in seinem Bett zu einem ungeheueren Ungeziefer verwandelt.“",
        "As Gregor Samsa awoke one morning from uneasy dreams he found himself transformed in his bed"
        " into a monstrous vermin.",
        "Très bien ! Et maintenant en français, puis en japonais (日本語でお願いします) et en russe (по-"
        "русски). ¿Cuál suena mejor? 😀",
    ),
    (
        "| city | 2019 | 2020 | 2021 |\n"
        "|---|---|---|---|\n"
        "| Oslo | 1,024.5 | 998.25 | 1,103.0 |\n"
        "| Bern | 512.75 | 498.5 | 530.125 |\n"
        "| Riga | 77.0 | 81.3 | 79.9 |\n\n"
        'Give me the sums as JSON, like {"2019": 0.0, "2020": 0.0, "2021": 0.0}.',
        '{"2019": 1614.25, "2020": 1578.05, "2021": 1713.025}',
        "Now the change in percent from 2019 to 2021 for each city, rounded to 2 digits, and say "
        "which city grew the most: 1) Oslo 2) Bern 3) Riga.",
    ),
)


def add(folder: Path, name: str, progress: Progress) -> None:
    """Writes the reference beside a checkpoint, or says why there is none."""
    what = "vectors" if checkpoint.pools(folder) else "log-probabilities"
    if reason := _too_large(folder):
        progress(f"{name}: no reference {what}: {reason}")
        return
    progress(Step(phase=f"{name}: reference {what}"))
    try:
        with quiet_transformers():
            found = _found(folder, name, progress)
    except vectors.NotComputed as error:
        progress(f"{name}: no reference {what}: {error}")
        return
    # Whatever transformers can't do with somebody's checkpoint, vLLM may still serve it, unverified.
    except Exception as error:
        cause = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        progress(f"{name}: no reference {what}: transformers can't run it ({cause})")
        return
    reference.save(found, folder)


def _found(folder: Path, name: str, progress: Progress) -> Reference | Vectors:
    if not checkpoint.pools(folder):
        return compute(folder, name, progress)
    texts = (*(chat[0] for chat in CHATS), *("\n\n".join(chat) for chat in CHATS))
    return vectors.compute(folder, name, progress, texts)


def _too_large(folder: Path) -> str | None:
    weights_bytes = checkpoint.weights_bytes(folder)
    # Most weights have 16 bits and are computed with in 32; the rest is for the program and one long prompt.
    needed_bytes = 2 * weights_bytes + 1_000_000_000
    available_bytes = machine().available_bytes
    if weights_bytes > MOST_WEIGHTS_BYTES:
        most = f"{MOST_WEIGHTS_BYTES / 1e9:.0f} GB"
        return f"its weights have {weights_bytes / 1e9:.1f} GB, they are made up to {most}"
    if needed_bytes > available_bytes:
        return f"they need {needed_bytes / 1e9:.1f} GB of memory, {available_bytes / 1e9:.1f} GB are available"
    return None


def compute(folder: Path, name: str, progress: Progress) -> Reference:
    """Greedy continuations of four chats, then the log-probability of each token, teacher-forced."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, trust_remote_code=False)
    model.eval()
    prompts = []
    with one_thread():
        for chat in CHATS:
            prompts.append(_prompt(model, _token_ids(tokenizer, chat)))
            progress(Step(phase=f"{name}: reference log-probabilities", share=len(prompts) / len(CHATS)))
    return Reference(made_by=f"transformers {version('transformers')}, float32", prompts=tuple(prompts))


def _token_ids(tokenizer: "PreTrainedTokenizerBase", chat: tuple[str, ...]) -> list[int]:
    if tokenizer.chat_template is None:
        return tokenizer.encode("\n\n".join(chat))
    turns = [{"role": ("user", "assistant")[turn % 2], "content": text} for turn, text in enumerate(chat)]
    rendered = str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
    return tokenizer.encode(rendered, add_special_tokens=False)


def _prompt(model: Any, token_ids: list[int]) -> Prompt:
    import torch

    with torch.inference_mode():
        text = model.generate(
            torch.tensor([token_ids]),
            attention_mask=torch.ones(1, len(token_ids), dtype=torch.long),
            do_sample=False,
            min_new_tokens=CONTINUATION_TOKENS,
            max_new_tokens=CONTINUATION_TOKENS,
        )
        scores = model(text).logits[0, :-1].float().log_softmax(dim=-1)
        logprobs = scores.gather(1, text[0, 1:, None])[:, 0]
    return Prompt(token_ids=tuple(text[0].tolist()), logprobs=tuple(round(value, 6) for value in logprobs.tolist()))
