"""Does a job answer every row once, go on where it was interrupted, and say which rows have no answer?"""

import asyncio
import csv
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from deployments.fleet import Fleet
from deployments.offline_answers import Answer, Prompt
from deployments.openai_wire import ChatRequest, CompletionRequest
from headrace.failure import Failure
from headrace.offline.command import Wish, left, run
from headrace.offline.engines import Done, Work, finish
from headrace.offline.place import Place
from headrace.offline.rows import BadRow
from headrace.offline.table import Partition
from headrace.steps import Steps


@dataclass
class Engines:
    """Answer as they are told, a partition at a time."""

    dies_at: int | None = None
    """Number of the partition before which the engine is lost."""
    interrupted_at: int | None = None
    asked: list[list[str]] = field(default_factory=list)
    """Prompts of each partition."""

    def __call__(self, partitions: Sequence[Partition], work: Work) -> Iterator[Done]:
        for partition in partitions:
            if partition.number == self.interrupted_at:
                raise KeyboardInterrupt
            if partition.number == self.dies_at:
                yield Done(failed="the engine died")
                continue
            yield asyncio.run(finish(partition, work, render, self.generate))

    async def generate(self, prompts: Sequence[Prompt]) -> list[Answer]:
        texts = [bytes(prompt.ids).decode() for prompt in prompts]
        self.asked.append(texts)
        assert all(prompt.sampling["max_tokens"] == 5 for prompt in prompts)
        return [
            Answer(prompt_tokens=len(text), error="too hot")
            if text == "hot"
            else Answer(text=text.upper(), finish_reason="stop", prompt_tokens=len(text), output_tokens=2)
            for text in texts
        ]


def render(asked: ChatRequest | CompletionRequest) -> Prompt:
    text = asked.messages[-1].content if isinstance(asked, ChatRequest) else asked.prompt
    if text == "long":
        raise BadRow("the prompt has 900 tokens, the model's context 256")
    return Prompt(ids=list(str(text).encode()), sampling={"max_tokens": asked.max_tokens})


def nowhere(fleet: Fleet, _engines: int | None, _steps: Steps) -> AbstractContextManager[Place]:
    """No hardware is looked at."""
    return nullcontext(Place(model=fleet.models[0], engines=1, sharers=1, claims=None, actor={}))


@dataclass
class User:
    folder: Path
    model: str = "small"

    def answers(self, file: str, engines: Engines, **asked: Any) -> Path:
        out = self.folder / "out"
        usual: dict[str, Any] = {"engine": [], "max_tokens": 5, "partition_rows": 3}
        run(
            Wish(source=str(self.folder / file), out=str(out), model=self.model, **usual | asked),
            by=engines,
            at=nowhere,
        )
        return out

    def refused(self, file: str, engines: Engines, **asked: Any) -> Failure:
        with pytest.raises(Failure) as refused:
            self.answers(file, engines, **asked)
        return refused.value

    def lines(self, *prompts: str) -> str:
        rows = [json.dumps({"id": number, "prompt": prompt}) for number, prompt in enumerate(prompts)]
        (self.folder / "in.jsonl").write_text("\n".join(rows))
        return "in.jsonl"


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> User:
    for name in ("HEADRACE_STATE", "HEADRACE_CACHE", "HEADRACE_ARTEFACTS"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    monkeypatch.setenv("COLUMNS", "200")
    return User(tmp_path)


def rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for part in sorted(out.glob("part-*.jsonl")) for line in part.read_text().splitlines()]


WORDS = ("one", "two", "three", "four", "five", "six", "seven")


def test_every_row_gets_its_answer_beside_its_columns(user: User, capsys: pytest.CaptureFixture[str]) -> None:
    engines = Engines()
    out = user.answers(user.lines(*WORDS), engines)
    assert [(row["id"], row["prompt"], row["answer"]) for row in rows(out)] == [
        (number, word, word.upper()) for number, word in enumerate(WORDS)
    ]
    assert rows(out)[0] == {
        "id": 0, "prompt": "one", "answer": "ONE", "finish_reason": "stop", "prompt_tokens": 3, "output_tokens": 2,
        "error": None,
    }  # fmt: skip
    assert engines.asked == [["one", "two", "three"], ["four", "five", "six"], ["seven"]], "all of a partition at once"
    said = capsys.readouterr().out
    assert "7 rows in 3 partitions" in said
    assert "27 tokens of prompts, 14 of answers" in said
    assert "all 7 rows have answers" in said


def test_what_was_lost_with_its_engine_is_done_by_the_same_command_and_nothing_else(
    user: User, capsys: pytest.CaptureFixture[str]
) -> None:
    file = user.lines(*WORDS)
    failed = user.refused(file, Engines(dies_at=1))
    assert failed.exit_code == 1
    assert str(failed) == ("the engine died\nwhat is written stays; the same command does the 4 rows that are left")
    (user.folder / "out" / ".part-00001.jsonl.partial").write_text("half")
    again = Engines()
    out = user.answers(file, again)
    assert again.asked == [["four", "five", "six"], ["seven"]]
    assert [row["answer"] for row in rows(out)] == [word.upper() for word in WORDS]
    assert not list(out.glob(".part-*"))
    assert "of which 2 (4 rows) are not in" in capsys.readouterr().out
    third = Engines()
    user.answers(file, third)
    assert third.asked == []


def test_ctrl_c_says_how_to_go_on(user: User) -> None:
    failed = user.refused(user.lines(*WORDS, "eight"), Engines(interrupted_at=2))
    assert failed.exit_code == 130
    assert str(failed) == ("interrupted: what is written stays; the same command does the 2 rows that are left")
    assert len(rows(user.folder / "out")) == 6


def test_rows_without_an_answer_are_told_by_number_and_the_rest_runs(user: User) -> None:
    (user.folder / "in.jsonl").write_text(
        '{"prompt": "one"}\nno json\n{"prompt": "hot"}\n{"prompt": "long"}\n\n{"id": 5}\n{"prompt": "six"}\n'
    )
    engines = Engines()
    failed = user.refused("in.jsonl", engines)
    assert failed.exit_code == 1
    assert str(failed).splitlines()[0] == "4 of 6 rows have no answer; the column `error` says why:"
    told = rows(user.folder / "out")
    assert [row["answer"] for row in told] == ["ONE", None, None, None, None, "SIX"]
    assert [row["error"] for row in told][2:5] == [
        "row 3: too hot", "row 4: the prompt has 900 tokens, the model's context 256", "row 6: no 'prompt'",
    ]  # fmt: skip
    assert str(told[1]["error"]).startswith("row 2: no JSON: ")
    again = user.refused("in.jsonl", engines)
    assert str(again) == str(failed), "told again of what is written"
    assert len(engines.asked) == 2


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_answers_have_the_form_of_what_was_asked(user: User, suffix: str) -> None:
    asked = [{"when": f"2024-01-0{n}", "q": word} for n, word in enumerate(("one", "hot", "日本\nx", "four"), 1)]
    if suffix == "csv":
        with (user.folder / "in.csv").open("w", newline="") as file:
            table = csv.DictWriter(file, ["when", "q"])
            table.writeheader()
            table.writerows(asked)
    else:
        kinds = pa.schema([("when", pa.large_string()), ("q", pa.string())])
        parquet.write_table(pa.Table.from_pylist(asked, kinds), user.folder / "in.parquet")
    failed = user.refused(f"in.{suffix}", Engines(), prompt="q", chat=True, prefix="a_")
    assert str(failed) == "1 of 4 rows have no answer; the column `a_error` says why:\nrow 2: too hot"
    parts = sorted((user.folder / "out").glob(f"part-*.{suffix}"))
    assert len(parts) == 2
    if suffix == "csv":
        texts = [StringIO(part.read_bytes().decode(), newline="") for part in parts]
        found = [row for text in texts for row in csv.DictReader(text)]
    else:
        tables = [parquet.read_table(part) for part in parts]
        assert tables[0].schema == tables[1].schema
        assert (tables[0].schema.field("when").type, tables[0].schema.field("a_output_tokens").type) == (
            pa.large_string(),
            pa.int64(),
        )
        found = [row for table in tables for row in table.to_pylist()]
    assert [(row["when"], row["q"]) for row in found] == [(row["when"], row["q"]) for row in asked]
    assert [row["a_answer"] or None for row in found] == ["ONE", None, "日本\nX", "FOUR"]
    assert str(user.refused(f"in.{suffix}", Engines(), prompt="q", chat=True, prefix="a_")) == str(failed)


def test_openai_s_batch_lines_are_asked_as_they_say(user: User) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "why"}]
    line = {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": {"messages": messages}}
    (user.folder / "in.jsonl").write_text(json.dumps(line))
    (row,) = rows(user.answers("in.jsonl", Engines()))
    assert (row["custom_id"], row["answer"]) == ("1", "WHY")


OTHER: list[tuple[Callable[[User], None], dict[str, Any], str]] = [
    (lambda user: None, {"sampling": '{"top_p": 0.5}'}, "rows differ"),
    (lambda user: None, {"partition_rows": 2}, "partition_rows differ"),
    (lambda user: None, {"prefix": "x"}, "prefix differ"),
    (lambda user: None, {"model": "tiny"}, "model differ"),
    (lambda user: (user.lines("other"), None)[1], {}, "input differ"),
]


@pytest.mark.parametrize(("change", "asked", "line"), OTHER)
def test_answers_of_another_job_are_not_mixed_in(
    user: User, change: Callable[[User], None], asked: dict[str, Any], line: str
) -> None:
    user.answers(user.lines(*WORDS), Engines())
    before = rows(user.folder / "out")
    change(user)
    if "model" in asked:
        user.model = asked.pop("model")
    engines = Engines()
    failed = user.refused("in.jsonl", engines, **asked)
    assert line in str(failed)
    assert (failed.exit_code, engines.asked, rows(user.folder / "out")) == (2, [], before)


def test_a_column_is_never_written_over(user: User) -> None:
    (user.folder / "in.jsonl").write_text('{"prompt": "x", "answer": "y"}')
    failed = user.refused("in.jsonl", Engines())
    assert "there is a column 'answer' already" in str(failed)
    assert rows(user.answers("in.jsonl", Engines(), prefix="second_"))[0]["answer"] == "y"


@pytest.mark.parametrize(
    ("content", "asked", "line"),
    [
        ("", {}, "there are no rows"),
        ('{"prompt": "x"}', {"sampling": "hot"}, "--sampling: no JSON"),
        ('{"prompt": "x"}', {"sampling": "[1]"}, "--sampling: should be an object"),
    ],
)
def test_what_can_t_be_asked_is_said_in_one_line(user: User, content: str, asked: dict[str, Any], line: str) -> None:
    (user.folder / "in.jsonl").write_text(content)
    failed = user.refused("in.jsonl", Engines(), **asked)
    assert line in str(failed)
    assert (len(str(failed).splitlines()), failed.exit_code) == (1, 2)


def test_the_time_that_is_left_follows_the_pace_since_the_first_answer() -> None:
    done = [Done(rows=10, output_tokens=500, began_s=100.0), Done(rows=10, output_tokens=500, began_s=104.0)]
    assert left(done, 60, 110.0) == "100 tokens/s, 20 s left"
    assert left(done, 2020, 110.0) == "100 tokens/s, 17 min left"
