"""What editors and newcomers are given is what the code accepts."""

from pathlib import Path

from deployments.fleet import Fleet, load
from headrace.init import EXAMPLE
from headrace.schema import schema

ROOT = Path(__file__).parents[2]


def test_the_exported_schema_is_current() -> None:
    exported = (ROOT / "docs" / "fleet.schema.json").read_text()
    assert exported == f"{schema()}\n", "run: headrace schema > docs/fleet.schema.json"


def test_the_example_is_what_init_writes_and_it_loads() -> None:
    assert (ROOT / "examples" / "fleet.yaml").read_text() == EXAMPLE
    assert load(ROOT / "examples" / "fleet.yaml").models[0].source == "smollm2"


def test_the_example_shows_every_setting_with_its_default() -> None:
    fleet = load(ROOT / "examples" / "fleet.yaml")
    defaults = Fleet.model_validate({"models": [{"name": "a", "source": "b"}]})
    for part in ("router", "scaling", "cluster"):
        assert getattr(fleet, part) == getattr(defaults, part)
        assert getattr(fleet, part).model_fields_set == set(type(getattr(fleet, part)).model_fields)
    assert fleet.models[0].model_fields_set | {"nodes"} == set(type(fleet.models[0]).model_fields)
