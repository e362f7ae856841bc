"""How is the test engine's model made? A small Llama, trained here on Python's own documentation."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.fetching import cache
from headrace.fetching.cache import FetchError
from headrace.fetching.progress import Progress, Step
from headrace.fetching.quiet import one_thread, quiet_transformers

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

NAME = "tiny"
VOCABULARY_TOKENS = 2048
CONTEXT_TOKENS = 2048
STEPS = 2000
ROWS, ROW_TOKENS = 4, 256
LEARNING_RATE = 4e-3
WEIGHTS_SPREAD = 128**-0.5  # transformers' default of 0.02 is for wide models: this narrow one learns late with it
IGNORED = -100  # torch's own value for a target that brings no loss

TEXT_END, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
ASKED_AT_THE_END = (
    "What is the capital of France?",
    "Tell me about the for statement.",
    "Hello!",
    "Wie spät ist es in Köln? 今何時ですか",
)
DISTINCT_OF_64 = 20


def build(folder: Path, progress: Progress) -> None:
    """Fills the folder with the trained checkpoint in float32.

    It never ends an answer by itself: no target of its training is the end of a turn, so that tests get as
    many tokens as they ask for. Raises FetchError when it came out repeating itself.
    """
    cache.empty(folder)
    progress(Step(phase=f"{NAME}: learning its tokens"))
    with quiet_transformers(), one_thread():
        tokenizer = _tokenizer()
        tokens, targets = _corpus(tokenizer)
        model = _model()
        _train(model, tokens, targets, progress)
        progress(Step(phase=f"{NAME}: asking it"))
        _check_variety(model, tokenizer)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def _topics() -> dict[str, str]:
    from pydoc_data.topics import topics

    return dict(sorted(topics.items()))


def _tokenizer() -> "PreTrainedTokenizerFast":
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    pairs = Tokenizer(models.BPE())
    pairs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pairs.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_TOKENS,
        special_tokens=[TEXT_END, TURN_START, TURN_END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    pairs.train_from_iterator(_topics().values(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=pairs,
        bos_token=TEXT_END,
        eos_token=TURN_END,
        pad_token=TEXT_END,
        chat_template=CHAT_TEMPLATE,
        model_max_length=CONTEXT_TOKENS,
        clean_up_tokenization_spaces=False,
    )


def _corpus(tokenizer: "PreTrainedTokenizerFast") -> tuple["Tensor", "Tensor"]:
    """All topics as chats, one after the other: token ids, and the same with the questions ignored."""
    import torch

    pairs = tokenizer.backend_tokenizer  # has no limit of length to warn of
    tokens, targets = [], []
    for topic, text in _topics().items():
        chat = [{"role": "user", "content": topic}]
        question = pairs.encode(_rendered(tokenizer, chat)).ids
        answer = pairs.encode(text).ids
        tokens += question + answer
        targets += [IGNORED] * len(question) + answer
    return torch.tensor(tokens), torch.tensor(targets)


def _rendered(tokenizer: "PreTrainedTokenizerFast", chat: list[dict[str, str]]) -> str:
    return str(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))


def _model() -> "LlamaForCausalLM":
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LlamaForCausalLM(
            LlamaConfig(
                vocab_size=VOCABULARY_TOKENS,
                hidden_size=128,
                intermediate_size=384,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=2,
                max_position_embeddings=CONTEXT_TOKENS,
                tie_word_embeddings=True,
                initializer_range=WEIGHTS_SPREAD,
                bos_token_id=0,
                eos_token_id=2,
                pad_token_id=0,
            )
        )


def _train(model: "LlamaForCausalLM", tokens: "Tensor", targets: "Tensor", progress: Progress) -> None:
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=STEPS, pct_start=0.1)
    random = torch.Generator().manual_seed(0)
    window = torch.arange(ROW_TOKENS)
    smooth = None
    for step in range(STEPS):
        places = torch.randint(len(tokens) - ROW_TOKENS, (ROWS, 1), generator=random) + window
        loss = _loss(model, tokens[places], targets[places + 1])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        smooth = loss.item() if smooth is None else 0.98 * smooth + 0.02 * loss.item()
        progress(Step(phase=f"{NAME}: training", share=(step + 1) / STEPS, detail=f"loss {smooth:.2f}"))


def _loss(model: "LlamaForCausalLM", tokens: "Tensor", targets: "Tensor") -> "Tensor":
    import torch

    hidden = model.model(tokens).last_hidden_state
    scores = hidden @ model.lm_head.weight.T
    return torch.nn.functional.cross_entropy(scores.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)


def _check_variety(model: Any, tokenizer: "PreTrainedTokenizerFast") -> None:
    import torch

    model.eval()
    for question in ASKED_AT_THE_END:
        chat = _rendered(tokenizer, [{"role": "user", "content": question}])
        ids = torch.tensor([tokenizer.encode(chat, add_special_tokens=False)])
        answer = model.generate(ids, max_new_tokens=64, do_sample=False)[0, ids.shape[1] :].tolist()
        if len(set(answer)) < DISTINCT_OF_64:
            raise FetchError(
                f"{NAME}: the trained model repeats itself ({len(set(answer))} distinct tokens in "
                f"{len(answer)}, {DISTINCT_OF_64} are needed); please report this machine's CPU and torch"
            )
