"""What training takes: 18 bytes a parameter under DDP, shared out under FSDP."""

from hypothesis import given
from hypothesis import strategies as st

from cluster.model import Model
from cluster.training import Batch, training_memory
from tests.cluster.shapes import dense, models

BATCH = Batch(sequences=1, tokens=2_048)


def test_ddp_holds_everything_on_each_device() -> None:
    model = dense()
    alone, many = (training_memory(model, devices=count, sharding="ddp", batch=BATCH) for count in (1, 8))
    assert alone == many
    assert alone.weights_bytes + alone.gradient_bytes + alone.optimizer_bytes == 18 * model.parameters


def test_fsdp_shares_out_what_lasts_and_gathers_a_layer_at_a_time() -> None:
    model = dense()
    found = training_memory(model, devices=8, sharding="fsdp", batch=BATCH)
    assert found.gradient_bytes + found.optimizer_bytes == 12 * model.parameters // 8
    gathered = found.weights_bytes - 4 * model.parameters // 8
    assert gathered == 2 * 2 * model.vocabulary * model.hidden  # the embedding is larger than a layer


def test_a_teacher_adds_its_weights_and_a_second_set_of_scores() -> None:
    model, teacher = dense(), dense(layers=16)
    without = training_memory(model, devices=1, sharding="ddp", batch=BATCH)
    taught = training_memory(model, devices=1, sharding="ddp", batch=BATCH, teacher=teacher)
    assert taught.teacher_bytes == teacher.weight_bytes
    assert taught.logits_bytes == 2 * without.logits_bytes
    assert taught.bytes == without.bytes + teacher.weight_bytes + without.logits_bytes


def test_activations_that_are_computed_again_need_not_be_kept() -> None:
    kept, again = (
        training_memory(
            dense(), devices=1, sharding="ddp", batch=Batch(sequences=1, tokens=2_048, checkpointed=checkpointed)
        ).activation_bytes
        for checkpointed in (False, True)
    )
    one = 2_048 * 4_096
    assert kept == 34 * 32 * one
    assert again == (2 * 32 + 34) * one


@given(models(), st.integers(1, 7))
def test_more_devices_never_need_more_on_each(model: Model, devices: int) -> None:
    few, many = (
        training_memory(model, devices=count, sharding="fsdp", batch=BATCH).bytes for count in (devices, devices + 1)
    )
    assert many <= few
    assert few <= training_memory(model, devices=1, sharding="ddp", batch=BATCH).bytes + 4 * model.parameters


@given(models(), st.integers(1, 64), st.integers(1, 4_096))
def test_a_larger_batch_never_needs_less(model: Model, sequences: int, tokens: int) -> None:
    small, large = (
        training_memory(model, devices=1, sharding="ddp", batch=Batch(sequences=count, tokens=tokens)).bytes
        for count in (sequences, sequences + 1)
    )
    assert large > small
