"""Are tasks asked as their files say, from files alone, and do wrong files and wrong comparisons end in one line?"""

import json
import math
import socket
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from compress.continuation import Continuation
from compress.tasks import Answers, TaskSource, compared, run
from deployments.file_errors import FileError

TASK = {
    "task": "colours",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"test": "colours.jsonl"}},
    "test_split": "test",
    "output_type": "multiple_choice",
    "doc_to_text": "question",
    "doc_to_choice": "choices",
    "doc_to_target": "answer",
}
ROWS = [
    {"question": "Sky?", "choices": ["aaaa", "zzzz"], "answer": 0},
    {"question": "Grass?", "choices": ["zzzz", "aaaa", "zzza", "zzaa"], "answer": 0},
]


@dataclass(frozen=True)
class ByteTokenizer:
    """One token for each byte, and one that begins a text, if it has a name."""

    bos_token: str | None = None
    eos_token_id: int = 256

    @property
    def bos_token_id(self) -> int | None:
        return 257 if self.bos_token else None

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        begin = [257] if self.bos_token and add_special_tokens else []
        if self.bos_token and text.startswith(self.bos_token):
            begin, text = [257], text.removeprefix(self.bos_token)
        return begin + list(text.encode())


@dataclass(frozen=True)
class LetterScorer:
    """Finds a letter as likely as it is frequent in its text, whatever comes before; remembers what it was asked."""

    text: str = "aaaaaaaaab"
    asked: list[tuple[list[int], list[int]]] = field(default_factory=list)

    def loglikelihood(self, pairs: list[tuple[list[int], list[int]]]) -> list[tuple[float, bool]]:
        self.asked.extend(pairs)
        counts = Counter(self.text.encode())
        total = sum(counts.values()) + 258
        return [(sum(math.log((counts[token] + 1) / total) for token in rest), False) for _, rest in pairs]


@dataclass(frozen=True)
class Reader:
    """Has read the text: finds what stands there right after the context certain, anything else unlikely."""

    text: str

    def loglikelihood(self, pairs: list[tuple[list[int], list[int]]]) -> list[tuple[float, bool]]:
        known = [bytes(context + rest).decode() in self.text for context, rest in pairs]
        return [(0.0 if found else -9.0 * len(rest), found) for found, (_, rest) in zip(known, pairs, strict=True)]


def written(folder: Path, rows: list[dict[str, Any]] | None = None, **changes: Any) -> Path:
    """A task file and its data; a change to None leaves the field out."""
    folder.mkdir(exist_ok=True, parents=True)
    (folder / "colours.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows or ROWS))
    config = {name: value for name, value in (TASK | changes).items() if value is not None}
    (folder / "colours.yaml").write_text(yaml.safe_dump(config))
    return folder / "colours.yaml"


def ask(*sources: TaskSource, scorer: Any = None, tokenizer: Any = None, **options: Any) -> dict[str, Answers]:
    return run(sources, scorer or LetterScorer(), tokenizer or ByteTokenizer(), **options)


def answers(right: list[bool], *, chance: float = 0.25, items_hash: str = "same") -> Answers:
    return Answers(name="colours", right=np.array(right), chance=chance, metric="acc", hash=items_hash)


def numbers(count: int, name: str) -> str:
    return " ".join(f"{name}{number}" for number in range(count))


def test_a_task_file_is_asked_with_the_data_beside_it(tmp_path: Path):
    found = ask(written(tmp_path))["colours"]
    assert found.right.tolist() == [True, False]
    assert found.metric == "acc_norm"
    assert found.chance == pytest.approx((1 / 2 + 1 / 4) / 2)


def test_items_may_have_several_right_answers_or_name_them(tmp_path: Path):
    several = written(tmp_path / "several", [{**row, "answer": [0, 1]} for row in ROWS])
    named = written(tmp_path / "named", [{**row, "answer": "zzzz"} for row in ROWS], task="named")
    found = ask(several, named)
    assert found["colours"].right.tolist() == [True, True]
    assert found["colours"].chance == pytest.approx((1 + 1 / 2) / 2)
    assert found["named"].right.tolist() == [False, False]


@pytest.mark.parametrize(
    ("metrics", "shown", "right"), [(["acc"], "acc", False), (["acc", "acc_norm"], "acc_norm", True)]
)
def test_the_score_by_letter_is_shown_where_the_task_reports_it(
    tmp_path: Path, metrics: list[str], shown: str, right: bool
):
    rows = [{"question": "Sky?", "choices": ["aaaa", "b"], "answer": 0}]
    listed = [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in metrics]
    found = ask(written(tmp_path, rows, metric_list=listed, target_delimiter=""))["colours"]
    assert (found.metric, found.right.tolist()) == (shown, [right])


def test_a_task_may_include_a_file_use_functions_and_show_examples(tmp_path: Path):
    written(tmp_path, output_type="generate_until", num_fewshot=1, fewshot_split="test", task=None)
    (tmp_path / "shout.py").write_text("def shout(doc):\n    return doc['question'].upper()\n")
    (tmp_path / "loud.yaml").write_text(
        "include: colours.yaml\ntask: loud\noutput_type: multiple_choice\ndoc_to_text: !function shout.shout\n"
    )
    scorer = LetterScorer()
    assert ask(tmp_path / "loud.yaml", scorer=scorer)["loud"].right.tolist() == [True, False]
    contexts = {bytes(context).decode() for context, _ in scorer.asked}
    assert any(context.startswith("GRASS? zzzz\n\nSKY?") for context in contexts)


# pandas leaves the file to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_data_may_be_a_table(tmp_path: Path):
    file = written(
        tmp_path,
        dataset_path="csv",
        dataset_kwargs={"data_files": "colours.csv", "sep": ";"},
        test_split="train",
        doc_to_choice="{{[one, two]}}",
    )
    (tmp_path / "colours.csv").write_text("question;one;two;answer\nSky?;aaaa;zzzz;0\nGrass?;aaaa;zzzz;1\n")
    assert ask(file)["colours"].right.tolist() == [True, False]


def test_answers_keep_the_order_of_the_file_and_are_the_same_each_time(tmp_path: Path):
    rows = [{"question": str(number), "choices": ["a", "z"], "answer": int(number % 3 == 0)} for number in range(100)]
    file = written(tmp_path, rows)
    first, again = (ask(file)["colours"] for _ in range(2))
    assert first.right.tolist() == [number % 3 != 0 for number in range(100)]
    assert first.hash == again.hash
    assert ask(written(tmp_path, rows[:-1]))["colours"].hash != first.hash


def test_a_text_is_begun_once_and_never_between_context_and_choice(tmp_path: Path):
    scorer, rows = LetterScorer(), [ROWS[0], {**ROWS[0], "question": "<s>Sky?"}, {**ROWS[0], "question": ""}]
    ask(written(tmp_path, rows, target_delimiter=""), scorer=scorer, tokenizer=ByteTokenizer(bos_token="<s>"))
    contexts = [context for context, _ in scorer.asked]
    assert contexts == [[257, *b"Sky?"]] * 4 + [[257]] * 2
    assert {bytes(rest) for _, rest in scorer.asked} == {b"aaaa", b"zzzz"}


def test_nothing_is_fetched_nothing_is_left_and_nothing_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    def refuse(*arguments: Any) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    ask(written(tmp_path / "tasks"), Continuation(documents=(numbers(400, "word"),)))
    assert not list((tmp_path / "temporary").iterdir())
    assert not (tmp_path / "cache").exists()
    assert sorted(path.name for path in (tmp_path / "tasks").iterdir()) == ["colours.jsonl", "colours.yaml"]
    assert capfd.readouterr() == ("", "")


def test_progress_is_told_over_all_tasks_together(tmp_path: Path):
    heard: list[float] = []
    ask(written(tmp_path), Continuation(documents=(numbers(4000, "word"),)), report=heard.append)
    assert len(heard) > 3
    assert heard == sorted(heard)
    assert heard[-1] == 1.0


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"output_type": None},
            "output_type: should be multiple_choice (nothing is generated here), got generate_until",
        ),
        (
            {"dataset_path": "allenai/ai2_arc"},
            "dataset_path: should be json, csv, parquet, text (files beside the task)",
        ),
        ({"dataset_kwargs": None}, "dataset_kwargs.data_files: is missing"),
        ({"dataset_kwargs": {"data_files": {"test": "color.jsonl"}}}, "dataset_kwargs.data_files.test: no such file"),
        ({"dataset_kwargs": {"data_files": {"test": "colours.yaml"}}}, "dataset_kwargs.data_files.test: "),
        ({"test_split": "exam"}, "test_split: should be a split of data_files (test), got 'exam'"),
        ({"test_split": None}, "must have valid or test docs"),
        ({"doc_to_txt": "question"}, "doc_to_txt: unknown field, did you mean doc_to_text?"),
        ({"doc_to_text": "{{questoin}}"}, "UndefinedError: 'questoin' is undefined"),
        ({"doc_to_target": "3"}, "IndexError: list index out of range"),
        ({"doc_to_target": "{{4 if 'Grass' in question else 0}}"}, "item 1: the answer should be one of its 4 choices"),
        ({"metric_list": [{"metric": "f1"}]}, "metric_list: should have acc or acc_norm, got f1"),
        ({"task": None}, "task: should be the task's name, got None"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_a_wrong_task_file_is_told_in_one_line(tmp_path: Path, changes: dict[str, Any], line: str):
    file = written(tmp_path, **changes)
    with pytest.raises(FileError) as refused:
        ask(file)
    assert str(refused.value).startswith(f"{file}: ")
    assert line in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_that_is_missing_or_no_yaml_is_told_in_one_line(tmp_path: Path):
    with pytest.raises(FileError, match=r"none\.yaml: no such file or directory$"):
        ask(tmp_path / "none.yaml")
    (tmp_path / "odd.yaml").write_text("task: [")
    with pytest.raises(FileError, match=r"odd\.yaml: .*line \d+: no valid YAML") as refused:
        ask(tmp_path / "odd.yaml")
    assert "\n" not in str(refused.value)


def test_two_tasks_of_one_name_are_refused(tmp_path: Path):
    with pytest.raises(FileError, match="colours is already the name of another task"):
        ask(written(tmp_path / "one"), written(tmp_path / "two"))


def test_an_item_that_the_engine_cannot_read_is_refused_not_cut(tmp_path: Path):
    with pytest.raises(FileError, match=r"an item has 11 tokens, at most 10 can be read: it begins with 'Grass\?'"):
        ask(written(tmp_path), window_tokens=10)
    assert len(ask(written(tmp_path), window_tokens=11)["colours"].right) == 2


def test_a_comparison_counts_the_same_items():
    parent, artefact = answers([True] * 60 + [False] * 40), answers([True] * 45 + [False] * 50 + [True] * 5)
    row = compared(parent=parent, artefact=artefact)
    assert (row.items, row.parent.value, row.artefact.value) == (100, 0.6, 0.5)
    assert row.difference.value == pytest.approx(-0.1)
    assert row.flips == pytest.approx(0.2)
    assert row.above_chance


def test_a_score_that_chance_explains_says_so():
    assert not compared(parent=answers([True, False] * 5), artefact=answers([True] * 10)).above_chance
    assert not compared(
        parent=answers([True] * 59 + [False] * 41, chance=0.5), artefact=answers([True] * 100)
    ).above_chance


def test_answers_to_different_items_are_not_compared():
    with pytest.raises(ValueError, match="not asked the same items"):
        compared(parent=answers([True]), artefact=answers([True], items_hash="other"))


def test_who_has_read_the_text_knows_how_it_goes_on_and_who_has_not_does_not():
    text = numbers(3200, "word") + "."
    task = Continuation(documents=(text,), items=100)
    read, unread = (ask(task, scorer=scorer)["continuation"] for scorer in (Reader(text), LetterScorer()))
    assert read.right.all()
    row = compared(parent=unread, artefact=read)
    assert (row.chance, row.above_chance) == (0.25, False)
    assert row.difference.low > 0.5


@pytest.mark.prove
def test_the_sample_model_knows_how_its_text_goes_on_and_loses_it_with_its_layers():
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from compress.depth import keep
    from compress.text import TOPICS, part_documents
    from headrace.fetching import resolve
    from tests.compress.transformers_scorer import TransformersScorer

    tokenizer = AutoTokenizer.from_pretrained(folder := resolve("smollm2"))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="bfloat16").eval()
    task = Continuation(documents=tuple(part_documents(TOPICS, "evaluation")), items=80)
    parent = ask(task, scorer=TransformersScorer(model), tokenizer=tokenizer)["continuation"]
    keep(model, [index for index in range(30) if not 20 <= index < 26])
    artefact = ask(task, scorer=TransformersScorer(model), tokenizer=tokenizer)["continuation"]
    row = compared(parent=parent, artefact=artefact)
    assert row.above_chance
    assert row.parent.high < 0.9
    assert row.difference.high < 0
