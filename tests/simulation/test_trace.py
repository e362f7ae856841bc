"""Are traces read as their makers wrote them, and do scaling and tiling keep what they should?"""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from simulation.trace import BadTrace, Trace, read, scaled, tiled


def test_a_gzipped_trace_is_read_from_0_on_in_order(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv.gz"
    path.write_bytes(gzip.compress(b"t_s,client,input_tokens,output_tokens\n7,1,20,0\n5,2,10,3\n"))
    found = read(path)
    assert found.at_s.tolist() == [0, 2]
    assert found.prompt_tokens.tolist() == [10, 20]
    assert found.output_tokens.tolist() == [3, 1], "an answer has a token at least"


def test_mooncakes_blocks_and_their_size_are_read(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    lines = [
        {"timestamp": 0, "input_length": 5_000, "output_length": 2, "hash_ids": list(range(10))},
        {"timestamp": 1_500, "input_length": 600, "output_length": 2, "hash_ids": [0, 77]},
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    found = read(path)
    assert found.at_s.tolist() == [0, 1.5]
    assert (found.block_tokens, found.prefixes[1]) == (512, (0, 77))


def test_what_is_no_list_of_blocks_is_named(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text('{"timestamp": 0, "input_length": 5, "output_length": 2, "hash_ids": ["a"]}\n')
    with pytest.raises(BadTrace, match="line 1: hash_ids: should be a list of whole numbers"):
        read(path)


def test_what_is_not_compressed_as_its_name_says_is_named(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv.gz"
    path.write_text("t_s,input_tokens,output_tokens\n")
    with pytest.raises(BadTrace, match="not a gzipped file"):
        read(path)


traces = st.lists(st.floats(0, 1_000), min_size=2, max_size=50).map(
    lambda times: Trace(
        at_s=np.sort(np.array(times)) - min(times),
        prompt_tokens=np.arange(1, len(times) + 1, dtype=np.int32),
        output_tokens=np.ones(len(times), dtype=np.int32),
        prefixes=[(number,) for number in range(len(times))],
        block_tokens=16,
    )
)


@given(traces, st.floats(0.01, 5), st.integers(0, 100))
def test_scaling_keeps_order_time_and_about_as_many_as_it_says(found: Trace, factor: float, seed: int) -> None:
    more = scaled(found, factor, seed=seed)
    assert more.requests <= found.requests * (int(factor) + 1)
    assert more.requests >= max(1, found.requests * int(factor))
    assert more.at_s[0] == 0
    assert (np.diff(more.at_s) >= 0).all()
    assert more.span_s <= found.span_s
    assert len(more.prefixes) == more.requests
    again = scaled(found, factor, seed=seed)
    assert (more.at_s == again.at_s).all()


@given(traces, st.floats(0, 5_000))
def test_tiles_follow_each_other_and_share_no_prefix(found: Trace, least_s: float) -> None:
    assume(least_s / found.span_s < 10_000 if found.span_s else True)
    more = tiled(found, least_s=least_s)
    times, rest = divmod(more.requests, found.requests)
    assert rest == 0
    assert more.span_s >= min(least_s, found.span_s * times) - 1e-6
    assert len(set(more.prefixes)) == more.requests


def test_a_moment_is_not_repeated_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("t_s,input_tokens,output_tokens\n0,10,5\n5e-94,100,5\n")
    with pytest.raises(BadTrace, match="more than 10,000,000 requests"):
        tiled(read(path), least_s=1.0)


def test_only_what_engines_take_is_played(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("t_s,input_tokens,output_tokens\n0,10,5\n1,100,5\n2,10,6\n")
    assert read(path).fitting(15).requests == 1
    assert read(path).fitting(16).prompt_tokens.tolist() == [10, 10]


def test_a_prompt_beyond_all_measure_is_named(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("t_s,input_tokens,output_tokens\n0,10,5\n1,99999999999,5\n")
    with pytest.raises(BadTrace, match="request 2: has more than 2\\^31 tokens"):
        read(path)
