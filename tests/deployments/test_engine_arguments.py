"""Engine arguments are known before vLLM is loaded."""

import pytest

from deployments.engine_arguments import check, known_arguments
from deployments.fleet import FileError, validate


def fleet_with(**engine: object) -> object:
    return validate({"models": [{"name": "tiny", "source": "tiny", "engine": engine}]})


@pytest.fixture(autouse=True)
def _vllm_is_installed() -> None:
    if not known_arguments():
        pytest.skip("vLLM is not installed")


def test_arguments_of_the_installed_engine_pass() -> None:
    check(
        fleet_with(max_model_len=512, kv_cache_memory_bytes=1, scheduling_policy="priority", enable_log_requests=True)
    )


def test_what_vllm_s_server_needs_to_call_tools_passes_too() -> None:
    check(fleet_with(tool_call_parser="hermes", enable_auto_tool_choice=True, reasoning_parser="qwen3"))


def test_what_makes_a_model_pool_passes_too() -> None:
    check(fleet_with(runner="pooling", convert="embed", pooler_config={"seq_pooling_type": "MEAN"}))


def test_an_unknown_argument_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(FileError) as refused:
        check(fleet_with(max_model_length=512))
    expected = "models[0].engine.max_model_length: vLLM has no such engine argument, did you mean max_model_len?"
    assert str(refused.value) == expected


def test_what_the_engine_gets_from_headrace_is_an_argument_it_knows() -> None:
    from deployments.vllm_engine import engine_arguments

    model = validate({"models": [{"name": "tiny", "source": "tiny"}]}).models[0]
    assert set(engine_arguments(model, cpu=True, avx512=False)) - {"served_model_name"} <= set(known_arguments())
