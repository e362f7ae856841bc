"""How does an engine go on with a stream that another engine began?

vLLM's front half, which makes text of ids and looks for stop strings, gets the request as it was asked and all that was
said: so it is in the state that the lost engine's was in. Its core gets the ids said so far as part of the prompt, and
less to say.
"""

from copy import copy
from typing import Any

from deployments.frames import Submit


class Resumption:
    """Adds requests to an AsyncLLM that was told where they stand. Belongs to one event loop."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self._processor = engine.output_processor
        self._register = self._processor.add_request
        self._processor.add_request = self._add
        self._begun: dict[str, tuple[Submit, Any]] = {}

    async def add_request(
        self, name: str, prompt: dict[str, Any], sampling: Any, begun: Submit, asked: Any, order: int
    ) -> Any:
        """As AsyncLLM's, for a request that had `begun` with the sampling parameters `asked`."""
        self._begun[name] = begun, asked
        try:
            return await self._engine.add_request(name, prompt, sampling, priority=order)
        finally:
            self._begun.pop(name, None)

    def _add(self, request: Any, *told: Any) -> None:
        """In the place of the output processor's: between this and the first output there is no other moment."""
        if (begun := self._begun.pop(request.external_req_id, None)) is None:
            self._register(request, *told)
            return
        order, asked = begun
        whole = copy(request)
        whole.prompt_token_ids, whole.sampling_params = order.prompt_ids, asked
        self._register(whole, *told)
        state = self._processor.request_states[request.request_id]
        state.prompt_len = len(request.prompt_token_ids)
        prime(state, order)


def prime(state: Any, order: Submit) -> None:
    """Brings what vLLM keeps of a request's output to where its reader is."""
    state.detokenizer.update(list(order.said_ids), False)
    # Text is said from here on, ids (of which several may go in one delta) from there.
    state.detokenizer._last_output_text_offset = order.sent_characters
    state.sent_tokens_offset = len(order.said_ids)
