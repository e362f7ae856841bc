"""Engine arguments on the command line become what the same arguments in a file are."""

import pytest

from headrace.engine_options import engine_options
from headrace.failure import Failure


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ("--max-model-len 1024", {"max_model_len": 1024}),
        ("--max_model_len=1024", {"max_model_len": 1024}),
        ("--gpu-memory-utilization 0.5 --dtype float32", {"gpu_memory_utilization": 0.5, "dtype": "float32"}),
        ("--enable-prefix-caching", {"enable_prefix_caching": True}),
        ("--no-enable-prefix-caching --seed 3", {"enable_prefix_caching": False, "seed": 3}),
        ('--hf-overrides {"a":[1,2]}', {"hf_overrides": {"a": [1, 2]}}),
        ("--seed -1", {"seed": -1}),
        ("--quantization=", {"quantization": None}),
        ("", {}),
    ],
)
def test_names_get_underscores_and_values_their_types(words: str, options: dict[str, object]) -> None:
    assert engine_options(words.split()) == options


@pytest.mark.parametrize("words", ["1024", "-x 1", "--", "--a 1 2", "--hf-overrides {"])
def test_what_is_no_argument_is_refused(words: str) -> None:
    with pytest.raises(Failure) as refused:
        engine_options(words.split())
    assert refused.value.exit_code == 2
