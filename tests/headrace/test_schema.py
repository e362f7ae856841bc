"""What editors and newcomers are given is what the code accepts."""

import json
from pathlib import Path

import jsonschema
import pytest
from typer.testing import CliRunner

from deployments.fleet import Fleet, load
from headrace.cli import app
from headrace.init import EXAMPLE
from headrace.schema import schema, write
from tests.headrace.report_samples import w8a8

ROOT = Path(__file__).parents[2]
ANEW = "python -c 'from pathlib import Path; from headrace.schema import write; write(Path(\"docs\"))'"


@pytest.mark.parametrize("name", ["fleet.schema.json", "recipe.schema.json", "report.schema.json"])
def test_the_exported_schemas_are_current(name: str, tmp_path: Path) -> None:
    write(tmp_path)
    assert (ROOT / "docs" / name).read_text() == (tmp_path / name).read_text(), f"run: {ANEW}"


@pytest.mark.parametrize(
    ("words", "name"), [([], "fleet"), (["fleet"], "fleet"), (["recipe"], "recipe"), (["report"], "report")]
)
def test_the_command_prints_the_schema_of_a_fleet_unless_told_otherwise(words: list[str], name: str) -> None:
    printed = CliRunner().invoke(app, ["schema", *words])
    assert printed.exit_code == 0
    assert printed.stdout == (ROOT / "docs" / f"{name}.schema.json").read_text()


def test_the_command_names_the_schemas_that_there_are() -> None:
    refused = CliRunner().invoke(app, ["schema", "recipes"])
    assert refused.exit_code == 2
    assert "'recipes' is not one of 'fleet', 'recipe', 'report'" in " ".join(refused.output.split())


def test_a_schema_accepts_what_its_model_accepts_and_refuses_unknown_fields() -> None:
    recipe, report = (jsonschema.Draft202012Validator(json.loads(schema(what))) for what in ("recipe", "report"))
    sample = json.loads(w8a8().model_dump_json())
    assert report.is_valid(sample)
    assert recipe.is_valid(sample["recipe"])
    assert not report.is_valid(sample | {"colour": "blue"})
    assert not recipe.is_valid(sample["recipe"] | {"steps": [{"do": "paint"}]})


def test_the_example_is_what_init_writes_and_it_loads() -> None:
    assert (ROOT / "examples" / "fleet.yaml").read_text() == EXAMPLE
    assert load(ROOT / "examples" / "fleet.yaml").models[0].source == "smollm2"


def test_the_example_shows_every_setting_with_its_default() -> None:
    fleet = load(ROOT / "examples" / "fleet.yaml")
    defaults = Fleet.model_validate({"models": [{"name": "a", "source": "b"}]})
    for part in ("router", "scaling", "store", "cluster"):
        assert getattr(fleet, part) == getattr(defaults, part)
        assert getattr(fleet, part).model_fields_set == set(type(getattr(fleet, part)).model_fields)
    assert fleet.models[0].model_fields_set | {"nodes", "placement"} == set(type(fleet.models[0]).model_fields)
