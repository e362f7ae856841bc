"""Is each attempt on docs/security.md made by a test that there is?"""

import ast
import re
from collections import Counter
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "security.md"
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
FEWEST_ATTEMPTS = 30
"""Rows that were there when the page was made: it grows."""


def rows() -> list[tuple[str, str]]:
    """Attempt and tests of each row of its tables."""
    cells = [line.strip("|").split("|") for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    return [(row[0].strip(), row[-1]) for row in cells if row[0].strip() not in ("who tries", "what is open")]


@cache
def functions(file: str) -> frozenset[str]:
    tree = ast.parse((ROOT / file).read_text())
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def test_each_attempt_names_tests_that_there_are() -> None:
    attempts = rows()
    assert len(attempts) >= FEWEST_ATTEMPTS
    for attempt, tests in attempts:
        named = NAMED.findall(tests)
        assert named, f"no test tries it: {attempt}"
        for file, test in named:
            assert (ROOT / file).exists(), f"{attempt}: there is no {file}"
            assert test.startswith("test_"), f"{attempt}: {test} is no test"
            assert test in functions(file), f"{attempt}: {file} has no {test}"


def test_no_attempt_is_told_twice() -> None:
    assert [attempt for attempt, count in Counter(attempt for attempt, _ in rows()).items() if count > 1] == []
