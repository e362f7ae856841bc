"""How is vLLM told what a request's answer should be, and what do its outputs become?"""

from collections.abc import Callable
from typing import Any

from deployments.call_tally import ABORTED
from deployments.frames import Delta, Failure

FAILED = "error"
"""Why vLLM ends a request that it could not serve; its own server answers that with 500 and the words used here."""

Emit = Callable[[Delta | Failure], None]


def sampling_params(parameters: dict[str, Any], stream: bool) -> Any:
    """vLLM's own form of sampling parameters. Raises what vLLM raises for wrong ones."""
    from vllm.sampling_params import RequestOutputKind, SamplingParams

    kind = RequestOutputKind.DELTA if stream else RequestOutputKind.FINAL_ONLY
    return SamplingParams.from_optional(**parameters, output_kind=kind, skip_clone=True)


def putter(number: int, attempt: int, emit: Emit, cut_off: Callable[[], None]) -> Callable[[Any], None]:
    """Emits each output of a request's as deltas; an error is the core's death, which is told by `on_death`.

    `cut_off()` is called instead where the core ends the request with no answer.
    """

    def put(output: Any) -> None:
        if isinstance(output, Exception):
            return
        cached = output.num_cached_tokens or 0
        for choice in output.outputs:
            if choice.finish_reason == ABORTED:
                cut_off()
                return
            if choice.finish_reason == FAILED:
                emit(Failure(number, attempt, 500, "Internal server error"))
                return
            emit(
                Delta(
                    number,
                    attempt,
                    choice.index,
                    choice.text,
                    list(choice.token_ids),
                    choice.finish_reason,
                    choice.stop_reason,
                    cached,
                )
            )

    return put
