"""What a step will leave is what it leaves, to the byte; what it can't do is refused with what would work."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from compress.forecast import Impossible, after, ffn_width, group, saved
from compress.layers import Unsupported
from compress.quantize import GROUPS, group_size
from compress.recipe import DropLayers, NarrowAttention, NarrowFfn, Quantize, Step
from compress.shape import Shape, read
from compress.steps import change
from tests.compress.decoders import TEXT, decoder, decoders, small_llama, tensor

STEP: TypeAdapter[Step] = TypeAdapter(Step)
QUANTIZED = [
    {"scheme": "w8a8"},
    {"scheme": "w8a8", "by": "gptq"},
    {"scheme": "w8a8", "smooth": 0.8},
    {"scheme": "w8a8", "kv_cache": "fp8"},
    {"scheme": "w4a16"},
    {"scheme": "w4a16", "group": 32, "by": "gptq"},
    {"scheme": "w4a16", "group": "channel"},
    {"scheme": "w4a16_asym", "group": 64},
    {"scheme": "w4a16_asym", "by": "awq"},
    {"scheme": "w4a16_asym", "group": "channel", "kv_cache": "fp8"},
    {"scheme": "fp8"},
]
PRUNED = [
    {"do": "drop_layers", "layers": 1},
    {"do": "narrow_ffn", "share": 0.3},
    {"do": "narrow_attention", "kv_heads": 1},
    {"do": "mask", "by": "magnitude"},
]

# torch's own modules, when llm-compressor imports them.


def carry_out(model: Any, step: Step) -> None:
    change(model, step, TEXT, 0, lambda share: None)


@pytest.mark.slow
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize(
    "given",
    [*PRUNED, *({"do": "quantize"} | fields for fields in QUANTIZED)],
    ids=lambda step: "-".join(map(str, step.values())),
)
def test_the_forecast_is_the_artefact_tensor_for_tensor(given: dict[str, Any], tied: bool, tmp_path: Path) -> None:
    step = STEP.validate_python(given)
    model = small_llama(tmp_path / "parent", tied=tied)
    carry_out(model, step)
    model.save_pretrained(tmp_path / "artefact")
    artefact = read(tmp_path / "artefact")
    assert after(read(tmp_path / "parent"), step) == artefact
    assert artefact.bytes == sum(_data_bytes(path) for path in (tmp_path / "artefact").glob("*.safetensors"))


def test_a_whole_recipe_is_forecast_step_after_step(tmp_path: Path) -> None:
    steps = [STEP.validate_python(fields) for fields in [*PRUNED, {"do": "quantize", "scheme": "w4a16"}]]
    model = small_llama(tmp_path / "parent", tied=True)
    shape = read(tmp_path / "parent")
    for step in steps:
        carry_out(model, step)
        shape = after(shape, step)
    model.save_pretrained(tmp_path / "artefact")
    assert shape == read(tmp_path / "artefact")


def _data_bytes(path: Path) -> int:
    """What follows the header, whose length stands in the first eight bytes."""
    with path.open("rb") as file:
        return path.stat().st_size - 8 - int.from_bytes(file.read(8), "little")


def refusal(shape: Shape, **fields: Any) -> str:
    with pytest.raises(Impossible) as refused:
        after(shape, STEP.validate_python(fields))
    return f"{refused.value.field}: {refused.value}"


def test_too_many_layers_are_refused_with_how_many_there_are() -> None:
    assert refusal(decoder(layers=4), do="drop_layers", layers=4) == "layers: must be below the model's 4, got 4"


def test_too_many_heads_are_refused_with_how_many_there_are() -> None:
    line = refusal(decoder(kv_heads=2), do="narrow_attention", kv_heads=2)
    assert line == "kv_heads: must be below the model's 2, got 2"


def test_a_share_that_rounds_to_nothing_is_refused_with_one_that_works() -> None:
    line = refusal(decoder(neurons=384), do="narrow_ffn", share=0.01)
    assert line == "share: 0.01 leaves 384 of 384 neurons: 0.1667 would leave 320"
    assert ffn_width(384, NarrowFfn(do="narrow_ffn", share=0.1667)) == 320


def test_a_multiple_wider_than_the_network_is_refused() -> None:
    line = refusal(decoder(neurons=96), do="narrow_ffn", share=0.5, multiple=96)
    assert line.endswith("multiple must be below 96, got 96")


def test_a_group_that_does_not_divide_is_refused_with_those_that_do() -> None:
    line = refusal(decoder(hidden=576), do="quantize", scheme="w4a16", group=256)
    assert line == "group: group 256 does not divide the widths [128, 384, 576]; 64, 32 would"


def test_a_group_is_judged_by_the_widths_that_earlier_steps_leave() -> None:
    step = Quantize(do="quantize", scheme="w4a16", group=128)
    assert group(decoder(neurons=384), step) == 128
    narrowed = after(decoder(neurons=384), NarrowFfn(do="narrow_ffn", share=0.2))
    with pytest.raises(Impossible, match="does not divide the widths"):
        after(narrowed, step)


def test_two_of_four_needs_widths_of_fours() -> None:
    assert refusal(decoder(hidden=126), do="mask", by="magnitude", pattern="2:4").startswith(
        "pattern: 2:4 needs widths"
    )


def test_fused_maps_can_lose_layers_but_no_neurons() -> None:
    fused = decoder(architecture="Phi3ForCausalLM")
    renamed = tuple(
        tensor(part.name.replace("gate_proj", "gate_up_proj"), part.shape)
        for part in fused.tensors
        if "up_proj" not in part.name
    )
    phi = decoder(architecture="Phi3ForCausalLM", tensors=renamed)
    line = refusal(phi, do="narrow_ffn", share=0.5)
    assert line.startswith("do: narrow_ffn does not know Phi3ForCausalLM: it has no linear map mlp.gate_proj")
    assert after(phi, DropLayers(do="drop_layers", layers=1)).layers == 3


def test_a_model_without_a_list_of_layers_is_refused_by_every_step() -> None:
    gpt = decoder(architecture="GPT2LMHeadModel", tensors=(tensor("transformer.h.0.attn.c_attn.weight", (8, 24)),))
    assert "no list of layers at model.layers" in refusal(gpt, do="mask", by="magnitude")


def test_what_is_quantized_can_not_be_changed_again() -> None:
    quantized = after(decoder(), Quantize(do="quantize", scheme="w8a8"))
    assert "can't be changed" in refusal(quantized, do="drop_layers", layers=1)


def test_a_tied_head_that_was_saved_too_is_written_once() -> None:
    twice = decoder(tied=True, tensors=(*decoder(tied=True).tensors, tensor("lm_head.weight", (256, 128))))
    assert saved(twice) == decoder(tied=True)


def test_weights_of_several_dtypes_are_written_in_one() -> None:
    mixed = decoder(tensors=tuple(tensor(part.name, part.shape, "F32") for part in decoder().tensors))
    assert saved(mixed) == decoder()


@given(decoders(), st.data())
def test_each_pruning_takes_bytes_and_parameters_away(shape: Shape, data: st.DataObject) -> None:
    step = data.draw(
        st.one_of(
            st.builds(DropLayers, do=st.just("drop_layers"), layers=st.integers(1, 6)),
            st.builds(NarrowFfn, do=st.just("narrow_ffn"), share=st.floats(0.05, 0.95), multiple=st.integers(1, 64)),
            st.builds(NarrowAttention, do=st.just("narrow_attention"), kv_heads=st.integers(1, 6)),
        )
    )
    try:
        left = after(shape, step)
    except Impossible:
        return
    assert 0 < left.bytes < shape.bytes
    assert 0 < left.parameters < shape.parameters
    assert left.flops_per_token(512) < shape.flops_per_token(512)
    assert left.bytes_by_part["embedding"] == shape.bytes_by_part["embedding"]


@given(decoders(), st.integers(1, 6))
def test_the_cache_shrinks_with_layers_and_with_heads(shape: Shape, count: int) -> None:
    each = shape.kv_bytes_per_token // (shape.layers * shape.kv_heads)
    if count < shape.layers:
        left = after(shape, DropLayers(do="drop_layers", layers=count))
        assert left.kv_bytes_per_token == each * (shape.layers - count) * shape.kv_heads
    if count < shape.kv_heads:
        left = after(shape, NarrowAttention(do="narrow_attention", kv_heads=count))
        assert left.kv_bytes_per_token == each * shape.layers * (shape.kv_heads - count)
        assert left.heads // left.kv_heads == shape.heads // shape.kv_heads


@given(decoders(), st.sampled_from(("w8a8", "fp8")))
def test_eight_bits_are_a_byte_for_each_weight_and_a_scale_for_each_row(shape: Shape, scheme: Any) -> None:
    left = after(shape, Quantize(do="quantize", scheme=scheme))
    each = 4 if shape.dtype == "F32" else 2
    linear = sum(part.bytes for part in shape.maps)
    assert sum(part.bytes for part in left.maps) * each == linear
    assert left.bytes_by_part["scales"] == each * sum(part.shape[0] for part in shape.maps)
    assert left.bytes - shape.bytes == left.bytes_by_part["scales"] - linear + linear // each
    assert left.parameters == shape.parameters


@given(decoders(), st.sampled_from(("w4a16", "w4a16_asym")), st.sampled_from(("auto", "channel", 16, *GROUPS)))
def test_a_group_that_is_forecast_is_accepted_by_quantize(shape: Shape, scheme: Any, wanted: Any) -> None:
    step = Quantize(do="quantize", scheme=scheme, group=wanted)
    widths = sorted({part.shape[1] for part in shape.maps})
    try:
        left = after(shape, step)
    except Impossible:
        with pytest.raises(Unsupported):
            group_size(step, widths)
        return
    accepted = group_size(step, widths)
    scales = {part.name: part.shape for part in left.tensors if part.name.endswith("weight_scale")}
    for part in shape.maps:
        assert scales[f"{part.name}_scale"] == (part.shape[0], part.shape[1] // (accepted or part.shape[1]))
    assert left.parameters == shape.parameters


@given(decoders())
def test_an_eight_bit_cache_takes_a_byte_for_each_value(shape: Shape) -> None:
    left = after(shape, Quantize(do="quantize", scheme="w8a8", kv_cache="fp8"))
    assert left.kv_bytes_per_token == 2 * shape.layers * shape.kv_heads * shape.head_dim
