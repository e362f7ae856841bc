"""Engine arguments are known before vLLM is loaded."""

from dataclasses import dataclass

import pytest

from deployments.engine_arguments import check, known_arguments
from deployments.fleet import FileError, validate
from deployments.replica_arguments import engine_arguments, with_configs


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
    model = validate({"models": [{"name": "tiny", "source": "tiny"}]}).models[0]
    assert set(engine_arguments(model, cpu=True, avx512=False)) - {"served_model_name"} <= set(known_arguments())


@dataclass(frozen=True)
class Depth:
    levels: int = 1


@dataclass(frozen=True)
class Kinds:
    """Like vLLM's: a config that is always there, one that may be, and what is a mapping itself."""

    depth: Depth = Depth()
    other: Depth | None = None
    plain: dict[str, int] | None = None
    name: str = ""


def test_mappings_become_the_configs_that_vllm_wants() -> None:
    given = {"depth": {"levels": 2}, "other": {"levels": 3}, "plain": {"levels": 4}, "name": "x"}
    assert with_configs(given, Kinds) == {"depth": Depth(2), "other": Depth(3), "plain": {"levels": 4}, "name": "x"}
    assert with_configs({"depth": Depth(5)}, Kinds) == {"depth": Depth(5)}
    with pytest.raises(TypeError, match="level"):
        with_configs({"depth": {"level": 2}}, Kinds)
