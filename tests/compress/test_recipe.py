"""What a recipe may say, and what is said of one that is wrong."""

from pathlib import Path

import pytest

from compress.recipe import read, validate
from deployments.file_errors import FileError

EXAMPLES = sorted((Path(__file__).parents[2] / "examples" / "recipes").glob("*.yaml"))
NARROW = {"do": "narrow_ffn", "share": 0.25}
ROUND = {"do": "quantize", "scheme": "w8a8"}


def recipe(*steps: dict[str, object], **fields: object) -> dict[str, object]:
    return {"name": "one", "source": "tiny", "steps": list(steps) or [NARROW]} | fields


def complaint(values: object) -> str:
    with pytest.raises(FileError) as refused:
        validate(values)
    return str(refused.value)


def test_every_example_is_a_recipe_and_no_two_are_the_same() -> None:
    found = [read(path) for path in EXAMPLES]
    assert len(found) > 20
    assert len({each.name for each in found}) == len({each.hash for each in found}) == len(found)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (recipe({"do": "narrow_ffn", "share": 1.5}), ("steps[0].share: should be less than 1, got 1.5",)),
        (
            recipe({"do": "narrow_ffn", "share": 0.5, "reppair": False}),
            ("steps[0].reppair: unknown field, did you mean repair?",),
        ),
        (recipe({"do": "quantise"}), ("steps[0].do: should be one of drop_layers, ", "did you mean quantize?")),
        (recipe({"by": "rtn"}), ("steps[0].do: is missing (one of drop_layers, ",)),
        (recipe(ROUND, NARROW), ("quantize must be the last step",)),
        (recipe(), ()),
        (recipe({"do": "mask", "by": "wanda", "rounds": 3}), ("rounds and recovery_steps go with magnitude",)),
        (recipe({"do": "mask", "by": "wanda", "pattern": "2:4", "sparsity": 0.4}), ("sparsity must be 0.5",)),
        (recipe({"do": "quantize", "scheme": "fp8", "by": "gptq"}), ("fp8 is rounded to the nearest",)),
        (recipe({"do": "quantize", "scheme": "w8a8", "group": 64}), ("group is for 4-bit weights",)),
        (recipe({"do": "distil", "loss": "kl"}), ("steps[0].loss: should be ", "forward_kl", "got 'kl'")),
        (
            recipe({"do": "distil", "student": {"layer": 3}}),
            ("steps[0].student: should be pruned or {layers: how many stay}, got {'layer': 3}",),
        ),
        (recipe({"do": "distil", "batch_blocks": 6, "workers": 4}), ("batch_blocks must divide by the 4 workers",)),
        (
            recipe({"do": "distil", "text": {"blocks": 4}}),
            ("batch_blocks must be at most text.blocks (4), got 8",),
        ),
        (recipe({"do": "distil", "sharded": True}), ("sharded needs at least 2 workers, got 1",)),
        (recipe({"do": "distil", "top_k": 0}), ("steps[0].top_k", "greater than or equal to 1", "got 0")),
        (recipe({"do": "distil", "temperature": 0}), ("steps[0].temperature", "greater than 0", "got 0")),
        (
            recipe({"do": "mask", "by": "wanda"}, NARROW, {"do": "distil"}),
            ("distil must not follow mask: training would fill the zeros",),
        ),
        (
            recipe({"do": "distil", "on_policy": {}, "workers": 2}),
            ("on_policy trains on one worker, got workers: 2",),
        ),
        (
            recipe({"do": "distil", "on_policy": {}, "top_k": 8}),
            ("top_k goes without on_policy, where the source tells all tokens, got 8",),
        ),
        (
            recipe({"do": "distil", "on_policy": {"prompt_tokens": 600}}),
            ("on_policy.prompt_tokens must be at most text.tokens (512), got 600",),
        ),
        (
            recipe({"do": "distil", "on_policy": {"new_token": 8}}),
            ("steps[0].on_policy.new_token: unknown field, did you mean new_tokens?",),
        ),
        (recipe({"do": "distil", "on_policy": {"new_tokens": 0}}), ("steps[0].on_policy.new_tokens", "got 0")),
        (recipe({"do": "distil", "on_policy": True}), ("steps[0].on_policy", "got True")),
        (recipe({"do": "distil", "on_policy": {"new_tokens": 8}}), ()),
        (recipe(NARROW, {"do": "distil"}, ROUND), ()),
        (recipe({"do": "distil", "student": {"layers": 3}}), ()),
        (recipe(speed={"rounds": 2}), ("speed.rounds", "greater than or equal to 5", "got 2")),
        (recipe(name="../up"), ("name", "letters, digits")),
        ({"source": "tiny", "steps": [NARROW]}, ("name: is missing",)),
    ],
)
def test_what_is_wrong_is_named_with_what_is_allowed(values: object, words: tuple[str, ...]) -> None:
    if not words:
        validate(values)
        return
    said = complaint(values)
    assert "\n" not in said
    for word in words:
        assert word in said


def test_a_hash_tells_recipes_apart_but_not_their_names() -> None:
    one = validate(recipe())
    assert one.hash == validate(recipe(name="other")).hash
    others = [recipe(seed=1), recipe(source="smollm2"), recipe(ROUND), recipe(calibration={"blocks": 3})]
    assert len({one.hash, *(validate(other).hash for other in others)}) == 5


def test_the_file_is_named_before_what_is_wrong_with_it(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("name: one\nname: two\n")
    with pytest.raises(FileError, match=r"recipe\.yaml: line 2: name is already given in line 1"):
        read(path)
    with pytest.raises(FileError, match="no such file"):
        read(tmp_path / "none.yaml")


def test_only_schemes_that_round_activations_are_given_more_room_by_the_gate() -> None:
    assert validate(recipe(ROUND)).rounds_activations
    assert not validate(recipe({"do": "quantize", "scheme": "w4a16"})).rounds_activations
    assert validate(recipe({"do": "quantize", "scheme": "w4a16", "kv_cache": "fp8"})).rounds_activations


@pytest.mark.parametrize("group", [0, 1.5, "chanel", None])
def test_a_wrong_group_is_told_once(group: object) -> None:
    said = complaint(recipe({"do": "quantize", "scheme": "w4a16", "group": group}))
    assert said == f"steps[0].group: should be auto, channel or a whole number from 1 on, got {group!r}"
