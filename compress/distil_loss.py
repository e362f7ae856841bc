"""How far is a student from its teacher, where the teacher tells only its likeliest tokens?

All other tokens count as one more outcome: of k tokens and the rest, both are whole distributions.
"""

from typing import Literal

import torch
from torch import Tensor

Kind = Literal["forward_kl", "reverse_kl"]


def divergence(logits: Tensor, ids: Tensor, teacher: Tensor, kind: Kind, temperature: float = 1.0) -> Tensor:
    """Mean over places of KL(teacher || student), or of the reverse, in nats, times the temperature squared.

    `logits`: (..., vocabulary), the student's; `ids`: (..., k), the teacher's likeliest tokens; `teacher`:
    (..., k + 1), their ln p and the rest's. Both distributions over the k + 1 outcomes are softened by the
    temperature; its square keeps gradients as large as without (Hinton et al., arXiv 1503.02531, section 2).
    """
    ours, theirs = coarse(logits, ids), teacher.float()
    if ours.shape[-1] < theirs.shape[-1]:
        theirs = theirs[..., :-1]  # every token is told: nothing is left for a rest
    one, other = (theirs / temperature).log_softmax(dim=-1), (ours / temperature).log_softmax(dim=-1)
    if kind == "reverse_kl":
        one, other = other, one
    return temperature**2 * (one.exp() * (one - other)).sum(dim=-1).mean()


def coarse(logits: Tensor, ids: Tensor) -> Tensor:
    """(..., k + 1): ln p of the tokens named, and of all others together; (..., k) where there are no others."""
    wide = logits.float()
    named = wide.gather(-1, ids)
    if ids.shape[-1] == wide.shape[-1]:
        return named.log_softmax(dim=-1)
    # Not 1 minus the sum of those named: next to 1 that has no digits left, and so no gradient.
    others = wide.scatter(-1, ids, float("-inf")).logsumexp(dim=-1, keepdim=True)
    return torch.cat([named, others], dim=-1).log_softmax(dim=-1)
