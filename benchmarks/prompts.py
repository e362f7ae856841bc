"""Which prompts does a benchmark send? Texts of an exact number of tokens, all different."""

import random
import re
from bisect import bisect_left
from collections.abc import Callable
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

Length = Callable[[str], int]


def prompts(folder: Path, *, chat: bool, count: int, tokens: int, seed: int) -> list[str]:
    """Texts that have `tokens` tokens each; `chat`: as a user's message, rendered by the checkpoint's chat template."""
    length, draw = lengths(folder, chat=chat), random.Random(seed)
    return [text_of_length(length, tokens, draw) for _ in range(count)]


def lengths(folder: Path, *, chat: bool) -> Length:
    """How a server counts the tokens of a text."""
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)

    def of_message(text: str) -> int:
        message = {"role": "user", "content": text}
        rendered = tokenizer.apply_chat_template([message], tokenize=False, add_generation_prompt=True)
        return len(tokenizer.backend_tokenizer.encode(rendered, add_special_tokens=False).ids)

    return of_message if chat else lambda text: len(tokenizer.backend_tokenizer.encode(text).ids)


def text_of_length(length: Length, tokens: int, draw: random.Random) -> str:
    """A random text of `tokens` tokens by `length`. Raises ValueError when its template alone is longer."""
    if length("") >= tokens:
        raise ValueError(f"the chat template alone has {length('')} tokens, more than {tokens}")
    while True:
        words = draw.choices(WORDS, k=tokens)
        count = bisect_left(range(tokens), tokens, key=lambda n: length(" ".join(words[:n])))
        if length(text := " ".join(words[:count])) == tokens:
            return text


WORDS = sorted(set(re.findall(r"\b[a-z]{2,9}\b", " ".join(topics.values()))))
"""Words of Python's own documentation."""
