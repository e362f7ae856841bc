"""Does the measurement of two training workers do what it says?"""

import json
from pathlib import Path

import pytest

from benchmarks.distil_workers import Round, main, summed_up
from tests.compress.tiny_models import llama


def test_ratios_are_of_the_same_round() -> None:
    rounds = [
        Round(one=1.0, together=1.8, apart=1.9, one_cpu_s=9.0, together_cpu_s=5.0, load_average=0.0),
        Round(one=2.0, together=3.0, apart=4.0, one_cpu_s=9.0, together_cpu_s=5.0, load_average=0.0),
        Round(one=0.5, together=0.8, apart=0.9, one_cpu_s=9.0, together_cpu_s=5.0, load_average=0.0),
    ]
    told = summed_up(rounds)
    ratios = told["two_workers_over_one"]
    assert ratios["each"] == pytest.approx([1.8, 1.5, 1.6])
    assert (ratios["least"], ratios["median"], ratios["most"]) == pytest.approx((1.5, 1.6, 1.8))
    assert told["two_that_exchange_nothing_over_one"]["median"] == pytest.approx(1.9)
    assert told["cpu_seconds_of_one_over_each_of_two"]["median"] == pytest.approx(1.8)
    assert len(told["rounds"]) == 3


@pytest.mark.prove
def test_a_small_model_is_trained_by_one_by_two_and_by_two_apart(tmp_path: Path) -> None:
    llama().save_pretrained(tmp_path / "student")
    output = tmp_path / "workers.json"
    words = ["--rounds", "1", "--steps", "2", "--batch-blocks", "4", "--tokens", "16", "--precision", "float32"]
    main([*words, "--student", str(tmp_path / "student"), "--output", str(output)])
    found = json.loads(output.read_text())
    assert found["asked"]["threads_each"] == 1
    (told,) = found["rounds"]
    assert min(told["one"], told["together"], told["apart"], told["one_cpu_s"], told["together_cpu_s"]) > 0
    assert found["two_workers_over_one"]["each"] == [told["together"] / told["one"]]
