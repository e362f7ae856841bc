"""Which load does a tour simulate? Twice what its model can bear, by what steps cost while prompts were answered."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from autoscaling import StepCosts, StepFit
from cluster.service import Requests, capacity_per_s, mixed_step_s
from headrace import simulate_case
from headrace.simulate_asked import Options
from headrace.tour_prompts import Prompt

TIMES = 2.0
"""How many times what the model can bear alone."""


def costs(alone: Iterable[Prompt], batch: Sequence[Prompt]) -> StepCosts | None:
    """What steps of one engine cost, as its clients saw it: by answers that came one after the other, and by those of a
    batch. None where it gave none of more than a token.
    """
    fit = StepFit()
    for one in alone:
        _add_first(fit, one)
        _add_rest(fit, one, [one])
    for one in batch:
        _add_rest(fit, one, batch)
    return fit.costs()


def scale(options: Options) -> float:
    """So many times the trace's requests are TIMES what the model alone can bear within its promises."""
    options = replace(options, scale=1.0)
    case = simulate_case.case(options)
    trace, _ = simulate_case.trace(options, case, seed=0)
    requests = Requests(
        prompt_tokens=max(1, round(trace.prompt_tokens.mean())), output_tokens=max(1, round(trace.output_tokens.mean()))
    )
    settings, step = case.setup.settings, case.setup.step
    in_time = [
        running
        for running in range(1, settings.max_sequences + 1)
        if mixed_step_s(requests, running, settings=settings, step=step) <= case.targets.token_s
    ]
    bears_per_s = capacity_per_s(requests, slots=max(in_time, default=1), settings=settings, step=step)
    return float(f"{TIMES * bears_per_s * trace.span_s / trace.requests:.3g}")


def _add_first(fit: StepFit, one: Prompt) -> None:
    """The step that read a prompt which met an idle engine."""
    if one.answer.first_s is not None:
        fit.add(one.answer.first_s, sequences=1, prompt_tokens=one.answer.prompt_tokens)


def _add_rest(fit: StepFit, one: Prompt, batch: Sequence[Prompt]) -> None:
    """The steps from an answer's first token to its last, with what else of a batch they did."""
    begun_s, ended_s = _span(one)
    steps, lasted_s = one.answer.tokens - 1, ended_s - begun_s
    if steps < 1 or lasted_s <= 0:
        return
    spans = [(_span(other), other.answer.prompt_tokens) for other in batch]
    together_s = sum(max(0.0, min(ended_s, end_s) - max(begun_s, first_s)) for (first_s, end_s), _ in spans)
    read = sum(tokens for (first_s, _), tokens in spans if begun_s < first_s <= ended_s)
    fit.add(lasted_s, sequences=together_s / lasted_s, prompt_tokens=read / steps, steps=steps)


def _span(one: Prompt) -> tuple[float, float]:
    """From an answer's first token to its last, by the batch's clock."""
    answer = one.answer
    return one.sent_s + (answer.first_s or 0.0), one.sent_s + answer.last_s
