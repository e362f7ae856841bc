"""Which engine arguments stand after `--` on the command line?"""

from typing import Any

import yaml

from headrace.failure import bad_input


def engine_options(words: list[str]) -> dict[str, Any]:
    """Reads `--max-model-len 1024 --enable-x --no-enable-y --z={"a": 1}` as vLLM would. Raises Failure."""
    options: dict[str, Any] = {}
    words = list(words)
    while words:
        word = words.pop(0)
        if not word.startswith("--") or len(word) < 3:
            raise bad_input(f"engine arguments look like --max-model-len 1024, got {word!r}")
        name, given, value = word.removeprefix("--").partition("=")
        if not given and words and not words[0].startswith("--"):
            given, value = "=", words.pop(0)
        name = name.replace("-", "_")
        if given:
            options[name] = _value(name, value)
        else:
            options[name.removeprefix("no_")] = not name.startswith("no_")
    return options


def _value(name: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise bad_input(f"--{name.replace('_', '-')}: can't read {text!r} as a value") from None
