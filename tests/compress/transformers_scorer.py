"""How likely does a transformers model on this machine find a text? The plainest scorer."""

from typing import Any

import torch

ROWS = 8


class TransformersScorer:
    """A causal model, as compress.tasks.Scorer."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def loglikelihood(self, pairs: list[tuple[list[int], list[int]]]) -> list[tuple[float, bool]]:
        shortest_first = sorted(range(len(pairs)), key=lambda index: sum(map(len, pairs[index])))
        scores: dict[int, tuple[float, bool]] = {}
        for start in range(0, len(pairs), ROWS):
            lot = shortest_first[start : start + ROWS]
            scores |= zip(lot, self._scores([pairs[index] for index in lot]), strict=True)
        return [scores[index] for index in range(len(pairs))]

    @torch.inference_mode()
    def _scores(self, pairs: list[tuple[list[int], list[int]]]) -> list[tuple[float, bool]]:
        rows = [torch.tensor(context + continuation) for context, continuation in pairs]
        padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        hidden = self._model.model(padded, use_cache=False).last_hidden_state
        scores = []
        for (context, continuation), states in zip(pairs, hidden, strict=True):
            before = states[len(context) - 1 : len(context) + len(continuation) - 1]
            log_probabilities = self._model.lm_head(before).float().log_softmax(dim=-1)
            wanted = torch.tensor(continuation)
            found = log_probabilities.gather(1, wanted[:, None]).sum().item()
            scores.append((found, bool((log_probabilities.argmax(dim=-1) == wanted).all())))
        return scores
