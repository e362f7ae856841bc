"""How does a text go on? A task for lm-eval, made from the text itself: four ways, one of them the text's own.

The other three are how the nearest passages go on, of the same document where it has them: a subject and a style in
common, so that a small model is right far above chance and far below always, and a loss shows.
"""

import json
import random
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from compress.text import TextTooShort

NAME = "continuation"
CHOICES = 4
BEGINNING_WORDS = 24
"""About 45 tokens of technical prose."""
REST_WORDS = 8
"""About 15 tokens."""
NEAR = 16
"""How many passages before and after one may lend it their continuation."""

CONFIG = {
    "task": NAME,
    "dataset_path": "json",
    "test_split": "test",
    "output_type": "multiple_choice",
    "doc_to_text": "beginning",
    "doc_to_choice": "choices",
    "doc_to_target": "answer",
    "target_delimiter": "",
    "metric_list": [{"metric": "acc_norm", "aggregation": "mean", "higher_is_better": True}],
}
"""acc_norm: log-probability by letter of the choice, for these differ in length."""


@dataclass(frozen=True, kw_only=True)
class Continuation:
    """The task, as a value. The same documents and seed give the same items, whatever the tokenizer."""

    documents: tuple[str, ...]
    """Of the evaluation part alone: a model that was calibrated on them would know them."""
    items: int = 240
    """At most; a short text gives fewer."""
    seed: int = 0


@dataclass(frozen=True)
class _Passage:
    document: int
    beginning: str
    rest: str


def write(task: Continuation, folder: Path) -> Path:
    """Writes the items and lm-eval's task file into a folder; returns the task file. Raises TextTooShort."""
    data, file = folder / f"{NAME}.jsonl", folder / f"{NAME}.yaml"
    data.write_text("".join(f"{json.dumps(item)}\n" for item in items(task)))
    file.write_text(yaml.safe_dump(CONFIG | {"dataset_kwargs": {"data_files": {"test": data.name}}}))
    return file


def items(task: Continuation) -> list[dict[str, Any]]:
    """Beginnings, choices and the index of the right one, in the order of the text. Raises TextTooShort."""
    drawn = random.Random(task.seed)
    passages = [passage for number, text in enumerate(task.documents) for passage in _passages(number, text)]
    able = [index for index in range(len(passages)) if len(_wrong(passages, index)) == CHOICES - 1]
    if not able:
        raise TextTooShort(
            f"the text holds {len(passages)} passages of {BEGINNING_WORDS + REST_WORDS} words for evaluation, "
            f"{CHOICES} that differ are needed"
        )
    chosen = sorted(drawn.sample(able, min(task.items, len(able))))
    return [_item(passages[index], _wrong(passages, index), drawn) for index in chosen]


def _passages(document: int, text: str) -> list[_Passage]:
    """A document, cut into passages; each word keeps the white space before it."""
    words, length = re.findall(r"\s*\S+", text), BEGINNING_WORDS + REST_WORDS
    rows = [words[start : start + length] for start in range(0, len(words) - length + 1, length)]
    return [_Passage(document, "".join(row[:BEGINNING_WORDS]), "".join(row[BEGINNING_WORDS:])) for row in rows]


def _wrong(passages: list[_Passage], index: int) -> list[str]:
    """How the nearest passages go on, those of the same document first; fewer where too few differ."""
    own = passages[index]
    near = [other for other in range(max(0, index - NEAR), min(len(passages), index + NEAR + 1)) if other != index]
    near.sort(key=lambda other: (passages[other].document != own.document, abs(other - index)))
    differing = dict.fromkeys(
        passages[other].rest for other in near if passages[other].rest.split() != own.rest.split()
    )
    return list(differing)[: CHOICES - 1]


def _item(passage: _Passage, wrong: list[str], drawn: random.Random) -> dict[str, Any]:
    choices = [passage.rest, *wrong]
    drawn.shuffle(choices)
    return {"beginning": passage.beginning, "choices": choices, "answer": choices.index(passage.rest)}
