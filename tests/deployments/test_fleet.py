"""A fleet file says what was meant, or is refused in one line for each field."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.fleet import FileError, Fleet, load, validate

WHOLE = {"models": [{"name": "tiny", "source": "tiny"}]}


def refusal(text: str, folder: Path) -> str:
    path = folder / "fleet.yaml"
    path.write_text(text)
    with pytest.raises(FileError) as refused:
        load(path)
    return str(refused.value).replace(f"{path}: ", "")


def with_model(**fields: object) -> dict[str, object]:
    return {"models": [{"name": "tiny", "source": "tiny"} | fields]}


def with_named(name: str) -> dict[str, object]:
    return {"name": name, "source": name}


def complaint(values: object) -> str:
    with pytest.raises(FileError) as refused:
        validate(values)
    return str(refused.value)


def complaints(values: object) -> list[str]:
    try:
        validate(values)
    except FileError as refused:
        return str(refused).splitlines()
    return []


def test_a_file_with_models_alone_has_every_default(tmp_path: Path) -> None:
    path = tmp_path / "fleet.yaml"
    path.write_text("models:\n  - {name: a, source: tiny}\n  - {name: b, source: smollm2}\n")
    fleet = load(path)
    assert [model.name for model in fleet.models] == ["a", "b"]
    assert fleet.router.port == 8000
    assert fleet.models[0].replicas.max == 1


def test_what_was_read_survives_being_written_as_json() -> None:
    fleet = validate(with_model(engine={"max_model_len": 512}, replicas={"min": 0, "max": 3}))
    assert Fleet.model_validate_json(fleet.model_dump_json()) == fleet


def test_a_misspelt_field_is_named_with_its_place_and_the_nearest_name(tmp_path: Path) -> None:
    line = refusal("models:\n- name: a\n  source: b\n  tensor_parallell: 2\n", tmp_path)
    assert line.startswith("models[0].tensor_parallell: unknown field, did you mean tensor_parallel? (allowed: ")


@pytest.mark.parametrize(
    ("values", "line"),
    [
        (
            with_model(tensor_parallel=0),
            "models[0].tensor_parallel: should be a whole number above 0, or auto, got 0",
        ),
        (with_model(name="a/b"), "models[0].name: should be letters, digits, '.', '_' and '-', beginning"),
        (with_model(name="a\n"), "models[0].name: should be letters"),
        (
            with_model(nodes=4, pipeline_parallel=2),
            "models[0]: nodes should be at most pipeline_parallel, as each stage stays on one machine",
        ),
        (
            with_model(nodes=2, pipeline_parallel=2, tensor_parallel=2, placement={"spread": True}),
            "models[0]: placement.spread goes with tensor_parallel 1, as Ray spreads GPU by GPU",
        ),
        (
            with_model(placement={"interconnect": "rack"}),
            "models[0]: placement.interconnect goes with nodes above 1, got nodes 1",
        ),
        (with_model(placement={"labels": {"rack": "a b"}}), "models[0].placement.labels.rack: "),
        (
            with_model(placement={"labels": {"ray.io/accelerator-type": "H100"}}),
            "models[0]: placement.labels: write placement.devices",
        ),
        (with_model(placement={"device": "H100"}), "models[0].placement.device: unknown field, did you mean devices?"),
        (
            with_model(engine={"data_parallel_size": "2"}),
            "models[0]: engine.data_parallel_size should be a whole number above 0, got '2'",
        ),
        (
            with_model(nodes=2, pipeline_parallel=2, engine={"data_parallel_size": 2}),
            "models[0]: engine.data_parallel_size should be 1 where nodes is above 1, got 2",
        ),
        (
            with_model(replicas={"min": 3, "max": 2}),
            "models[0].replicas: min must be <= max, got min 3 and max 2",
        ),
        (with_model(replicas={"min": "two"}), "models[0].replicas.min: should be a valid integer"),
        (
            WHOLE | {"router": {"port": 99999}},
            "router.port: should be less than or equal to 65535, got 99999",
        ),
        (WHOLE | {"router": {"prot": 1}}, "router.prot: unknown field, did you mean port?"),
        (WHOLE | {"router": 5}, "router: should be fields and values, got 5"),
        (WHOLE | {"cluster": {"address": "ray://x"}}, "cluster.address: should be 'local', got 'ray://x'"),
        (WHOLE | {"scaling": {"hold_s": float("inf")}}, "scaling.hold_s: should be a finite number, got inf"),
        ({"models": []}, "models: should have at least 1, got []"),
        ({"models": [{"name": "a"}]}, "models[0].source: is missing (A fetched name"),
        ({}, "models: is missing"),
        ([1], "the file: should be fields and values, got [1]"),
    ],
)
def test_each_wrong_value_gets_a_line_with_place_value_and_what_is_allowed(values: object, line: str) -> None:
    assert complaint(values).startswith(line)


def test_every_wrong_field_gets_its_own_line() -> None:
    lines = complaint(with_model(nodes=0) | {"router": {"port": 0}, "moduls": 1}).splitlines()
    assert [line.partition(":")[0] for line in lines] == ["models[0].nodes", "router.port", "moduls"]


@pytest.mark.parametrize(
    ("argument", "instead"),
    [
        ("tensor_parallel_size", "write `tensor_parallel`"),
        ("model", "write `source`"),
        ("pipeline-parallel-size", "write `pipeline_parallel`"),
        ("distributed_executor_backend", "it follows from `nodes`"),
        ("data_parallel_backend", "the copies of data_parallel_size all run on the replica's machine"),
        ("max-model-len", "write max_model_len"),
    ],
)
def test_engine_arguments_that_are_set_elsewhere_are_refused_with_the_right_place(argument: str, instead: str) -> None:
    line = complaint(with_model(engine={argument: 1}))
    assert line.startswith(f"models[0].engine: {argument} ")
    assert instead in line


def test_a_name_given_twice_is_refused() -> None:
    model = {"name": "a", "source": "b"}
    assert complaint({"models": [model, model]}) == "models: each name may appear once, 'a' appears 2 times"


def test_a_key_given_twice_is_refused_with_both_lines(tmp_path: Path) -> None:
    text = "models:\n- name: a\n  source: b\n  name: c\n"
    assert refusal(text, tmp_path) == "line 4: name is already given in line 2"


def test_broken_yaml_is_refused_with_line_and_column(tmp_path: Path) -> None:
    assert refusal("models:\n- name: a\n b: c\n", tmp_path).startswith("line 3, column 2: no valid YAML: ")


def test_an_empty_file_and_a_missing_one_say_so(tmp_path: Path) -> None:
    assert refusal("# nothing\n", tmp_path).startswith("is empty")
    with pytest.raises(FileError, match=r"gone\.yaml: no such file or directory"):
        load(tmp_path / "gone.yaml")


def test_a_file_that_is_no_text_says_so(tmp_path: Path) -> None:
    (tmp_path / "fleet.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FileError, match="is not text in UTF-8"):
        load(tmp_path / "fleet.yaml")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["models", "router", "scaling", "cluster", "other"]), json_values) | json_values)
def test_any_values_are_either_a_fleet_or_refused_in_lines_with_a_place(values: object) -> None:
    assert all(": " in line for line in complaints(values))


def with_variants(*variants: dict[str, object], **fields: object) -> dict[str, object]:
    return with_model(variants=[{"name": "w4", "source": "tiny-w4"} | variant for variant in variants], **fields)


def test_a_variant_has_engines_of_its_own_that_differ_from_its_models_where_it_says_so() -> None:
    engine = {"max_model_len": 512, "dtype": "bfloat16"}
    variant = {"engine": {"dtype": "float16"}, "tensor_parallel": 1, "replicas": {"min": 0, "max": 2}}
    fleet = validate(with_variants(variant, engine=engine, tensor_parallel=2, require_reference=True))
    itself, other = fleet.engines
    assert (itself.name, itself.engine, itself.variants) == ("tiny", engine, [])
    assert (other.name, other.source, other.tensor_parallel) == ("tiny-w4", "tiny-w4", 1)
    assert other.engine == {"max_model_len": 512, "dtype": "float16"}
    assert (other.replicas.max, other.require_reference, other.variants) == (2, True, [])
    (alike,) = validate(with_variants({}, tensor_parallel=2)).engines[1:]
    assert (alike.tensor_parallel, alike.replicas.max) == (2, 1)
    assert Fleet.model_validate_json(fleet.model_dump_json()) == fleet


def test_what_is_changed_of_each_engine_is_changed_of_models_and_variants() -> None:
    fleet = validate(with_variants({}, {"name": "w8", "quality": 0.9}))
    changed = fleet.with_engines(lambda engine: {"source": f"/models/{engine.name}"})
    (model,) = changed.models
    assert [engine.source for engine in changed.engines] == ["/models/tiny", "/models/tiny-w4", "/models/tiny-w8"]
    assert [variant.name for variant in model.variants] == ["w4", "w8"]
    assert [variant.quality for variant in model.variants] == [None, 0.9]


@pytest.mark.parametrize(
    ("values", "line"),
    [
        (with_variants({"quality": 1.5}), "models[0].variants[0].quality: should be less than or equal to 1, got 1.5"),
        (with_variants({"quality": 0}), "models[0].variants[0].quality: should be greater than 0, got 0"),
        (with_variants({}, {}), "models[0].variants: each name may appear once, 'w4' appears 2 times"),
        (
            with_variants({"name": "tiny"}),
            "models[0]: a variant should not be named as its model, 'tiny', which is the best variant",
        ),
        (
            with_variants({"tensor_parallel": 0}),
            "models[0].variants[0].tensor_parallel: should be a whole number above 0, or auto, got 0",
        ),
        (
            with_variants({"engine": {"port": 1}}),
            "models[0].variants[0].engine: port is set by Headrace: write `router.port`",
        ),
        (
            {"models": [{"name": "a", "source": "s", "variants": [{"name": "b", "source": "s"}]}, with_named("a-b")]},
            "models: each name may appear once, 'a-b' appears 2 times",
        ),
    ],
)
def test_a_variant_that_can_not_be_is_refused_by_its_place(values: dict[str, object], line: str) -> None:
    assert complaints(values) == [line]
