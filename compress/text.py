"""Which text calibrates a step, and which one judges it? Documents, split by their hash, cut into blocks."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from compress.recipe import Slice

TOPICS = "topics"
Part = Literal["calibration", "evaluation"]
GATE_BLOCKS, GATE_TOKENS = 2, 256
"""Enough for a wrong kernel or a lost tensor to show, and little for an engine to compute."""


class TextTooShort(ValueError):
    """A text that does not fill the blocks asked for; it says how many it fills."""


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """Text as a model reads it."""

    rows: tuple[tuple[int, ...], ...]
    """Token ids, every row of the same length."""

    @property
    def hash(self) -> str:
        """SHA-256 of the token ids: figures are comparable only where it is the same."""
        return hashlib.sha256(repr(self.rows).encode()).hexdigest()


def documents(text: str) -> list[str]:
    """The documents of `topics`, or of a file. Raises OSError, UnicodeDecodeError."""
    if text == TOPICS:
        from pydoc_data.topics import topics

        return [topics[name] for name in sorted(topics)]
    parts = Path(text).expanduser().read_text().split("\n\n")
    return [part.strip("\n") for part in parts if part.strip()]


def blocks(tokenizer: Any, wanted: Slice, part: Part) -> Blocks:
    """One part's documents, one after the other in the order of their hashes, cut into rows. Raises TextTooShort."""
    mine = part_documents(wanted.text, part)
    token_ids: list[int] = []
    needed = wanted.blocks * wanted.tokens
    for document in mine:
        if len(token_ids) >= needed:
            break
        token_ids += tokenizer.encode(document, add_special_tokens=False, verbose=False)
    if len(token_ids) < needed:
        raise TextTooShort(
            f"{wanted.text} fills {len(token_ids) // wanted.tokens} blocks of {wanted.tokens} tokens for {part}, "
            f"{wanted.blocks} are wanted"
        )
    starts = range(0, needed, wanted.tokens)
    return Blocks(rows=tuple(tuple(token_ids[start : start + wanted.tokens]) for start in starts))


def gate(tokenizer: Any, evaluation: Slice) -> Blocks:
    """The fixed piece of the evaluation's text on which engine and compressor are compared."""
    wanted = Slice(text=evaluation.text, blocks=GATE_BLOCKS, tokens=min(GATE_TOKENS, evaluation.tokens))
    return blocks(tokenizer, wanted, "evaluation")


def part_documents(text: str, part: Part) -> list[str]:
    """The documents of one part, in the order of their hashes. Raises OSError, UnicodeDecodeError."""
    hashed = sorted((hashlib.sha1(document.encode()).hexdigest(), document) for document in documents(text))
    return [document for digest, document in hashed if _part(digest) == part]


def _part(digest: str) -> Part:
    return "calibration" if int(digest[-1], 16) % 2 else "evaluation"
