"""Which share of a task's items does a model answer rightly? lm-eval on local files, asking a scorer of ours."""

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import datasets
import lm_eval.api.task
import numpy as np
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.evaluator import evaluate
from numpy.typing import NDArray

from compress import statistics
from compress.continuation import Continuation, write
from compress.report import Task
from compress.task_files import TaskFile, load
from deployments.file_errors import FileError

PAIRS = 64
"""Asked at once; between two lots, progress is told."""

TaskSource = Path | Continuation
"""A task file, or the task that is made from a text."""
TokenIds = list[int]
Report = Callable[[float], None]
"""Hears which share of the work is done."""


class Scorer(Protocol):
    """A model that says how likely a text is."""

    def loglikelihood(self, pairs: list[tuple[TokenIds, TokenIds]]) -> list[tuple[float, bool]]:
        """For each (context, continuation): the sum of ln p of the continuation's tokens; whether all are greedy."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Answers:
    """What a model answered to a task."""

    name: str
    right: NDArray[np.bool_]
    """By item, in the order of the task."""
    chance: float
    """Share that guessing gets right."""
    metric: str
    """acc_norm: the choice likeliest by letter is the answer; acc: the likeliest."""
    hash: str
    """SHA-256 of the items as they were asked: answers are comparable only where it is the same."""


def run(
    sources: Sequence[TaskSource],
    scorer: Scorer,
    tokenizer: Any,
    *,
    window_tokens: int | None = None,
    report: Report = lambda share: None,
) -> dict[str, Answers]:
    """Asks all items of all tasks; answers by the task's name.

    window_tokens: the longest item that the scorer takes; None: any. Raises FileError (a task can't be used, or an
    item is too long) and TextTooShort (from a Continuation).
    """
    if not sources:
        return {}
    with TemporaryDirectory(prefix="headrace-tasks-") as folder, _quiet():
        files = _load_all(sources, Path(folder))
        bridge = _Bridge(scorer, tokenizer, window_tokens, report)
        asked: Any = {"tasks": {file.name: file.task for file in files}, "groups": {}, "group_map": {}}
        found: Any = evaluate(bridge, asked, bootstrap_iters=0)
        return {file.name: _answers(file, found["samples"][file.name]) for file in files}


def compared(*, parent: Answers, artefact: Answers) -> Task:
    """One row of the report. Raises ValueError where the two were not asked the same."""
    if parent.hash != artefact.hash:
        raise ValueError(f"{parent.name}: parent and artefact were not asked the same items")
    score = statistics.share(parent.right)
    return Task(
        name=parent.name,
        items=len(parent.right),
        chance=parent.chance,
        parent=score,
        artefact=statistics.share(artefact.right),
        difference=statistics.paired_difference(artefact=artefact.right, parent=parent.right),
        flips=statistics.flips(artefact=artefact.right, parent=parent.right),
        above_chance=score.low > parent.chance,
    )


def _load_all(sources: Sequence[TaskSource], folder: Path) -> list[TaskFile]:
    found: dict[str, TaskFile] = {}
    for source in sources:
        path = source if isinstance(source, Path) else write(source, folder)
        file = load(path, folder)
        if file.name in found:
            raise FileError(f"{path}: task: {file.name} is already the name of another task")
        found[file.name] = file
    return list(found.values())


def _answers(file: TaskFile, samples: list[dict[str, Any]]) -> Answers:
    first = samples[0]["filter"]
    items = sorted((sample for sample in samples if sample["filter"] == first), key=lambda sample: sample["doc_id"])
    asked = [[sample["arguments"], sample["target"]] for sample in items]
    return Answers(
        name=file.name,
        right=np.array([bool(sample[file.metric]) for sample in items]),
        chance=file.chance,
        metric=file.metric,
        hash=hashlib.sha256(repr([file.metric, asked]).encode()).hexdigest(),
    )


class _Bridge(TemplateLM):
    """lm-eval's requests, as token ids, to a scorer. The library demands a subclass."""

    def __init__(self, scorer: Scorer, tokenizer: Any, window_tokens: int | None, report: Report) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self._scorer, self._window_tokens, self._report = scorer, window_tokens, report

    @property
    def eot_token_id(self) -> int:
        return self.tokenizer.eos_token_id

    @property
    def prefix_token_id(self) -> int:
        begin = self.tokenizer.bos_token_id
        return self.eot_token_id if begin is None else begin

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> TokenIds:
        begin = self.tokenizer.bos_token
        if add_special_tokens is None:
            add_special_tokens = not (begin and string.startswith(begin))
        return self.tokenizer.encode(string, add_special_tokens=add_special_tokens)

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        return super().loglikelihood(requests, disable_tqdm=True)

    def _loglikelihood_tokens(
        self, requests: list[tuple[tuple[str, str], TokenIds, TokenIds]], **kwargs: Any
    ) -> list[tuple[float, bool]]:
        for (context, _), context_ids, continuation_ids in requests:
            self._check(context, len(context_ids) + len(continuation_ids))
        pairs = [(context_ids, continuation_ids) for _, context_ids, continuation_ids in requests]
        scores: list[tuple[float, bool]] = []
        for start in range(0, len(pairs), PAIRS):
            scores += self._scorer.loglikelihood(pairs[start : start + PAIRS])
            self._report(len(scores) / len(pairs))
        return scores

    def _check(self, context: str, tokens: int) -> None:
        if self._window_tokens is not None and tokens > self._window_tokens:
            raise FileError(
                f"an item has {tokens} tokens, at most {self._window_tokens} can be read: "
                f"it begins with {context[:40]!r}"
            )

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        raise NotImplementedError("only choices are asked for")

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        raise NotImplementedError("only choices are asked for")


@contextmanager
def _quiet() -> Iterator[None]:
    """lm-eval and datasets log and draw progress bars of their own, which can't be switched off by argument."""
    logger, library = logging.getLogger("lm_eval"), lm_eval.api.task
    level, bar, bars = logger.level, library.tqdm, not datasets.are_progress_bars_disabled()
    logger.setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    library.tqdm = lambda rows, **_: rows  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        logger.setLevel(level)
        library.tqdm = bar  # pyright: ignore[reportAttributeAccessIssue]
        if bars:
            datasets.enable_progress_bars()
