"""The loss of a distillation is a distance of whole distributions, however few tokens the teacher tells."""

from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from compress.distil_loss import Kind, coarse, divergence

VOCABULARY = 12
SEEDS = st.integers(0, 2**32 - 1)
KINDS = st.sampled_from(get_args(Kind))
TEMPERATURES = st.floats(0.5, 4)


def logits(seed: int, *, spread: float = 3.0) -> Tensor:
    drawn = torch.randn(3, VOCABULARY, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return spread * drawn


def told(wide: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """What a teacher with these logits tells: ids, and ln p of them and of the rest."""
    ids = wide.topk(k).indices
    p = wide.softmax(dim=-1)
    rest = (1 - p.gather(-1, ids).sum(dim=-1, keepdim=True)).clamp(min=1e-9)
    return ids, torch.cat([p.gather(-1, ids), rest], dim=-1).log()


def exact(student: Tensor, teacher: Tensor, kind: Kind, temperature: float) -> Tensor:
    p, q = ((wide / temperature).log_softmax(dim=-1) for wide in (teacher, student))
    one, other = (p, q) if kind == "forward_kl" else (q, p)
    return temperature**2 * (one.exp() * (one - other)).sum(dim=-1).mean()


@given(SEEDS, SEEDS, KINDS, TEMPERATURES)
def test_with_every_token_told_it_is_the_divergence_over_the_whole_vocabulary(
    one: int, other: int, kind: Kind, temperature: float
) -> None:
    student, teacher = logits(one), logits(other)
    found = divergence(student, *told(teacher, VOCABULARY), kind, temperature)
    assert found.item() == pytest.approx(exact(student, teacher, kind, temperature).item(), rel=1e-3, abs=1e-4)


@given(SEEDS, SEEDS, KINDS, TEMPERATURES, st.integers(1, VOCABULARY))
def test_it_is_never_below_nothing(one: int, other: int, kind: Kind, temperature: float, k: int) -> None:
    assert divergence(logits(one), *told(logits(other), k), kind, temperature).item() >= -1e-5


@given(SEEDS, SEEDS, KINDS, st.integers(1, VOCABULARY))
def test_fewer_tokens_told_never_say_more(one: int, other: int, kind: Kind, k: int) -> None:
    student, teacher = logits(one), logits(other)
    coarser = divergence(student, *told(teacher, k), kind)
    assert coarser.item() <= exact(student, teacher, kind, 1.0).item() + 1e-4


@given(SEEDS, KINDS, TEMPERATURES, st.integers(1, VOCABULARY))
def test_who_says_the_same_is_at_no_distance(seed: int, kind: Kind, temperature: float, k: int) -> None:
    wide = logits(seed)
    found = divergence(wide + 5.0, *told(wide, k), kind, temperature)  # logits count up to a constant
    assert abs(found.item()) < 1e-4


@given(SEEDS, st.integers(1, VOCABULARY - 1))
def test_the_tokens_told_and_the_rest_are_a_whole_distribution(seed: int, k: int) -> None:
    found = coarse(logits(seed), told(logits(seed), k)[0])
    torch.testing.assert_close(found.exp().sum(dim=-1), torch.ones(3))


@pytest.mark.parametrize("kind", get_args(Kind))
def test_a_student_that_is_all_but_sure_still_gets_gradients_that_are_numbers(kind: Kind) -> None:
    sure = torch.tensor([[60.0, 0.0, 0.0, 0.0]], requires_grad=True)
    divergence(sure, *told(torch.tensor([[0.0, 2.0, 1.0, 0.0]]), 2), kind).backward()
    assert sure.grad is not None
    assert sure.grad.isfinite().all()


@pytest.mark.parametrize("kind", get_args(Kind))
def test_following_its_gradient_leads_to_the_teacher(kind: Kind) -> None:
    student, (ids, said) = logits(1, spread=0.5).float().requires_grad_(True), told(logits(2, spread=1.0), 4)
    optimizer = torch.optim.Adam([student], lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        loss = divergence(student, ids, said, kind)
        loss.backward()
        optimizer.step()
    assert divergence(student, ids, said, kind).item() < 1e-3
