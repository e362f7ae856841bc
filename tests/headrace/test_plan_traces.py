"""A trace's load: mean lengths, the fullest minute, and a line for what can't be read."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.failure import Failure
from headrace.plan_traces import load, read
from simulation.trace import Trace

times = st.lists(st.floats(0, 10_000), min_size=2, max_size=60).filter(lambda found: max(found) - min(found) > 1)


def trace(found: list[float]) -> Trace:
    at_s = np.sort(np.array(found))
    tokens = np.full(len(found), 10, dtype=np.int32)
    return Trace(at_s=at_s - at_s[0], prompt_tokens=tokens, output_tokens=tokens)


def test_azures_dates_are_read(tmp_path: Path) -> None:
    path = tmp_path / "azure.csv"
    path.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:15:46.6805900,374,44\n"
        "2023-11-16 18:15:50.9951690,396,109\n"
        "2023-11-16 18:17:50.0000000,401,1\n"
    )
    found = read(path)
    assert (found.requests, found.prompt_tokens, found.output_tokens) == (3, 390, 51)
    assert found.span_s == pytest.approx(123.319, abs=0.001)
    assert found.peak_rate_per_s == 2 / 60
    assert found.longest_tokens == 505


def test_mooncakes_milliseconds_are_read(tmp_path: Path) -> None:
    path = tmp_path / "mooncake.jsonl"
    lines = [{"timestamp": at, "input_length": 10, "output_length": 2, "hash_ids": [1]} for at in (0, 0, 30_000)]
    path.write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    found = read(path)
    assert found.span_s == 30
    # Shorter than a minute: all of them over its span.
    assert found.peak_rate_per_s == found.mean_rate_per_s == 0.1


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        (
            "a.csv",
            "time,tokens\n1,2\n",
            "should have the columns TIMESTAMP,ContextTokens,GeneratedTokens or arrival_s,",
        ),
        ("a.csv", "arrival_s,prompt_tokens,output_tokens\n1,2,3\nx,2,3\n", "line 3: arrival_s: should be a number"),
        ("a.csv", "arrival_s,prompt_tokens,output_tokens\n1,2,3\n2,2\n", "line 3: output_tokens: should be a number"),
        ("a.csv", "TIMESTAMP,ContextTokens,GeneratedTokens\nnow,1,1\n", "line 2: TIMESTAMP: should be a date"),
        ("a.csv", "arrival_s,prompt_tokens,output_tokens\n1,2,3\n", "should have at least 2 requests, got 1"),
        ("a.csv", "", "should have the columns"),
        ("a.jsonl", "{\n", "line 1: is no JSON"),
        ("a.jsonl", "[]\n", "line 1: should be an object with timestamp, input_length, output_length"),
        ("a.jsonl", '{"timestamp": 1}\n', "line 1: input_length: should be a number from 0 on, got None"),
        ("a.csv", "arrival_s,prompt_tokens,output_tokens\n1,2,3\n1,2,3\n", "all requests came at the same time"),
    ],
)
def test_what_can_not_be_read_is_named(tmp_path: Path, name: str, text: str, line: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(Failure) as refused:
        read(path)
    assert line in str(refused.value)
    assert str(refused.value).startswith("--trace: ")


def test_what_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(Failure, match="is not text in UTF-8"):
        read(tmp_path / "a.csv")


@given(times)
def test_the_peak_is_no_lower_than_the_mean_and_no_higher_than_all_at_once(found: list[float]) -> None:
    made = load(trace(found))
    assert made.peak_rate_per_s <= len(found) / min(60.0, made.span_s)
    whole_minutes = -(-made.span_s // 60)
    assert made.peak_rate_per_s * 60 >= min(len(found) / (whole_minutes + 1), len(found)) * 0.999
