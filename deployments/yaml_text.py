"""What does the text of a file that a user wrote hold? YAML, in which every key appears once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import yaml

from deployments.file_errors import FileError

Values = TypeVar("Values")


def read(path: Path, validate: Callable[[object], Values]) -> Values:
    """A YAML file's values as `validate` gives them. Raises FileError, each line beginning with the file's path."""
    try:
        return validate(parse(path.read_text()))
    except OSError as error:
        raise FileError(f"{path}: {(error.strerror or str(error)).lower()}") from None
    except UnicodeDecodeError:
        raise FileError(f"{path}: is not text in UTF-8") from None
    except FileError as error:
        raise FileError("\n".join(f"{path}: {line}" for line in str(error).splitlines())) from None


def parse(text: str) -> Any:
    """The values in a YAML text. Raises FileError with line and column."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if root is None:
            raise FileError("is empty")
        _refuse_repeated_keys(root)
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise FileError(_one_line(error)) from None


def _refuse_repeated_keys(node: yaml.Node) -> None:
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_repeated_keys(item)
    elif isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            if name in seen:
                raise FileError(f"line {line}: {name} is already given in line {seen[name]}")
            seen[name] = line
            _refuse_repeated_keys(value)


def _one_line(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    return f"{where}no valid YAML: {problem}"
