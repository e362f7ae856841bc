"""What differs between two fleets is named by its field, whole models by their name."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from deployments.fleet import Fleet, validate
from headrace.fleet_changes import changes, effects

NAMES = st.lists(st.sampled_from("abcd"), min_size=1, unique=True)


def fleet(*names: str, **settings: Any) -> Fleet:
    return validate({"models": [{"name": name, "source": f"/models/{name}"} for name in names]} | settings)


def test_a_changed_field_is_named_as_in_the_file() -> None:
    before, after = fleet("a"), fleet("a", router={"replicas": 3, "limits": {"n": 4}})
    said = [str(change) for change in changes(before, after)]
    assert said[0] == "~ router.replicas: 1 -> 3"
    assert said[1].startswith("~ router.limits.n: ")


def test_a_new_model_is_one_change() -> None:
    (change,) = changes(fleet("a"), fleet("a", "b"))
    assert str(change).startswith("+ models.b: {'name': 'b'")


def test_an_engine_argument_comes_and_goes() -> None:
    plain = fleet("a")
    (model,) = plain.models
    set_ = plain.model_copy(update={"models": [model.model_copy(update={"engine": {"max_num_seqs": 4}})]})
    assert [str(change) for change in changes(plain, set_)] == ["+ models.a.engine.max_num_seqs: 4"]
    assert [str(change) for change in changes(set_, plain)] == ["- models.a.engine.max_num_seqs: 4"]


@given(NAMES, NAMES)
def test_every_model_is_started_ended_or_replaced(before: list[str], after: list[str]) -> None:
    old, new = fleet(*before), fleet(*after)
    said = "\n".join(effects(old, new))
    if old == new:
        assert not said
        return
    for name in {*before, *after}:
        kind = "replaces" if name in before and name in after else "starts" if name in after else "ends"
        assert f"{kind} engines of {name}" in said
    assert bool(changes(old, new)) == (set(before) != set(after))


def test_a_first_fleet_starts_its_routers() -> None:
    assert effects(None, fleet("a")) == ["starts routers", "starts engines of a"]
