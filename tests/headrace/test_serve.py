"""What is typed after `headrace serve` becomes one fleet."""

from pathlib import Path

import pytest

from deployments.fleet import StoreSettings
from headrace.failure import Failure
from headrace.serve import fleet_for, model_name
from headrace.stores import stored


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("smollm2", "smollm2"),
        ("owner/Model-1.5B", "Model-1.5B"),
        ("./models/my model/", "my-model"),
        ("/", "model"),
    ],
)
def test_a_model_is_called_by_the_end_of_its_source(source: str, name: str) -> None:
    assert model_name(source) == name


def test_a_model_without_a_file_is_a_fleet_of_one() -> None:
    fleet = fleet_for("owner/name", ["--max-model-len", "512"], port=8123, host=None)
    (model,) = fleet.models
    assert (model.name, model.source, model.engine) == ("name", "owner/name", {"max_model_len": 512})
    assert (fleet.router.port, fleet.router.host) == (8123, "127.0.0.1")


def test_options_win_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "fleet.yaml"
    path.write_text("models: [{name: a, source: tiny}]\nrouter: {port: 1234, max_queued_requests: 7}\n")
    fleet = fleet_for(str(path), [], port=None, host="0.0.0.0")
    assert (fleet.router.port, fleet.router.host, fleet.router.max_queued_requests) == (1234, "0.0.0.0", 7)


def test_a_wrong_file_is_the_users_mistake(tmp_path: Path) -> None:
    (tmp_path / "f.yml").write_text("models: 3\n")
    with pytest.raises(Failure, match="models: should be a valid list") as refused:
        fleet_for(str(tmp_path / "f.yml"), [], port=None, host=None)
    assert refused.value.exit_code == 2


@pytest.mark.parametrize(
    ("typed", "written", "advises"), [(True, "", True), (False, "", False), (False, "advise: true", True)]
)
def test_advice_is_asked_for_by_an_option_or_in_the_file(
    typed: bool, written: str, advises: bool, tmp_path: Path
) -> None:
    (tmp_path / "f.yaml").write_text(f"models: [{{name: a, source: tiny}}]\nscaling: {{{written}}}\n")
    fleet = fleet_for(str(tmp_path / "f.yaml"), [], port=None, host=None, advise=typed)
    assert fleet.scaling.advise == advises


def test_a_fleet_without_a_store_gets_that_of_its_run_s_name_whoever_deploys_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_STATE", str(tmp_path))
    fleet = fleet_for("tiny", [], port=None, host=None)
    assert stored(fleet, "second").store.url == f"sqlite:///{tmp_path}/stores/second.sqlite"
    own = fleet.model_copy(update={"store": StoreSettings(url="postgresql+psycopg://host/headrace")})
    assert stored(own, "second") == own
