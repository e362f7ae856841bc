"""What does a task file hold? lm-eval's task, read with the data that lies beside it, and nothing from a network.

Written against lm-eval 0.4.13. A task file may name Python functions beside it (`!function`): they run.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import datasets
import yaml
from datasets.exceptions import DatasetGenerationError
from lm_eval.api.task import ConfigurableTask
from lm_eval.config.task import TaskConfig

# The public TaskManager would look for data files in the working folder, not beside the task.
from lm_eval.tasks._yaml_loader import load_yaml

from deployments.file_errors import FileError, nearest

READERS = {
    "json": datasets.Dataset.from_json,
    "csv": datasets.Dataset.from_csv,
    "parquet": datasets.Dataset.from_parquet,
    "text": datasets.Dataset.from_text,
}
METRICS = ("acc_norm", "acc")
"""The first of them that a task reports is shown."""
FEWSHOT_SEED = 1234
"""lm-eval's own: which examples stand before an item."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TaskFile:
    """A task, ready to be asked."""

    name: str
    task: ConfigurableTask
    metric: str
    chance: float
    """Share of the items that guessing gets right."""


def load(path: Path, cache: Path) -> TaskFile:
    """A multiple-choice task and its items, read through a folder for temporary files. Raises FileError, one line."""
    try:
        return _load(path, cache)
    except FileError as error:
        raise FileError(f"{path}: {error}") from None
    except OSError as error:
        raise FileError(f"{error.filename or path}: {(error.strerror or str(error)).lower()}") from None
    # lm-eval, jinja and a user's functions raise whatever they like.
    except Exception as error:
        raise FileError(f"{path}: lm-eval can't use it: {type(error).__name__}: {_first_line(error)}") from error


def _load(path: Path, cache: Path) -> TaskFile:
    config = load_yaml(path)
    _check(config)
    if "custom_dataset" not in config:
        splits = _read(config, path.parent, cache)
        config = config | {"custom_dataset": lambda **_: splits, "dataset_kwargs": None}
    task = ConfigurableTask(config=config)
    task.set_fewshot_seed(FEWSHOT_SEED)
    reported = list(task.higher_is_better())
    metric = next((name for name in METRICS if name in reported), None)
    if metric is None:
        raise FileError(f"metric_list: should have acc or acc_norm, got {', '.join(reported) or 'none'}")
    shares = [_guess(task, number, doc) for number, doc in task.doc_iterator()]
    return TaskFile(name=config["task"], task=task, metric=metric, chance=sum(shares) / len(shares))


def _check(config: dict[str, Any]) -> None:
    known = [field.name for field in fields(TaskConfig)]
    for name in config:
        if name not in known:
            raise FileError(f"{name}: unknown field{nearest(name, known)}")
    if not isinstance(config.get("task"), str):
        raise FileError(f"task: should be the task's name, got {config.get('task')!r}")
    kind = config.get("output_type", "generate_until")
    if kind != "multiple_choice":
        raise FileError(f"output_type: should be multiple_choice (nothing is generated here), got {kind}")


def _read(config: dict[str, Any], folder: Path, cache: Path) -> dict[str, Any]:
    """The splits of a task's data. Raises FileError."""
    kind, options = config.get("dataset_path"), dict(config.get("dataset_kwargs") or {})
    if kind not in READERS:
        raise FileError(f"dataset_path: should be {', '.join(READERS)} (files beside the task), got {kind!r}")
    files = options.pop("data_files", None)
    if not files:
        raise FileError("dataset_kwargs.data_files: is missing (files beside the task, by split)")
    by_split = files if isinstance(files, dict) else {"train": files}
    for field in ("test_split", "validation_split", "training_split", "fewshot_split"):
        if (wanted := config.get(field)) is not None and wanted not in by_split:
            raise FileError(f"{field}: should be a split of data_files ({', '.join(by_split)}), got {wanted!r}")
    return {split: _split(kind, split, given, folder, cache, options) for split, given in by_split.items()}


def _split(kind: str, split: str, given: str | list[str], folder: Path, cache: Path, options: dict[str, Any]) -> Any:
    paths = [folder / name for name in ([given] if isinstance(given, str) else given)]
    for path in paths:
        if not path.is_file():
            raise FileError(f"dataset_kwargs.data_files.{split}: no such file: {path}")
    try:
        return READERS[kind]([str(path) for path in paths], cache_dir=str(cache), keep_in_memory=True, **options)
    except DatasetGenerationError as error:
        raise FileError(f"dataset_kwargs.data_files.{split}: {_first_line(error.__cause__ or error)}") from None


def _guess(task: ConfigurableTask, number: int, doc: dict[str, Any]) -> float:
    """Right choices / choices of one item. Raises FileError where none is right."""
    choices: list[Any] = list(task.doc_to_choice(doc))
    answer = task.doc_to_text(doc) if task.multiple_input else task.doc_to_target(doc)
    given = answer if isinstance(answer, list) else [answer]
    right = {choices.index(one) if one in choices else one for one in given}
    if not right or not right <= set(range(len(choices))):
        raise FileError(f"item {number}: the answer should be one of its {len(choices)} choices, got {answer!r}")
    return len(right) / len(choices)


def _first_line(error: BaseException) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        return f"line {error.problem_mark.line + 1}: no valid YAML: {error.problem}"
    return next(iter(str(error).splitlines()), "")
