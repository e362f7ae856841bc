"""Which token ids does a chat or a text become?"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from deployments.openai_wire import ApiError, ChatRequest, Message

INLINE_CHARACTERS = 8_000
"""Shorter texts are tokenized in place: a hop to a thread would cost more than the work."""


class Renderer:
    """Chat template and tokenizer of one model. Raises ApiError for what the template refuses."""

    def __init__(self, source: str, threads: ThreadPoolExecutor) -> None:
        from transformers import AutoTokenizer

        self._tokenizer: Any = AutoTokenizer.from_pretrained(source)
        self._fast: Any = getattr(self._tokenizer, "backend_tokenizer", None)
        self._threads = threads

    async def chat(self, request: ChatRequest) -> list[int]:
        """Ids of the rendered conversation; the template brings its own special tokens."""
        text = self._template(request)
        return await self._tokenize(text, bool(request.add_special_tokens))

    async def text(self, prompt: str, add_special_tokens: bool) -> list[int]:
        """Ids of a plain text."""
        return await self._tokenize(prompt, add_special_tokens)

    def chat_ids(self, request: ChatRequest) -> list[int]:
        """The same as `chat`, in the caller's thread."""
        return self._encode(self._template(request), bool(request.add_special_tokens))

    def text_ids(self, prompt: str, add_special_tokens: bool) -> list[int]:
        """The same as `text`, in the caller's thread."""
        return self._encode(prompt, add_special_tokens)

    async def _tokenize(self, text: str, special: bool) -> list[int]:
        if len(text) <= INLINE_CHARACTERS:
            return self._encode(text, special)
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._encode, text, special)

    def _encode(self, text: str, special: bool) -> list[int]:
        if self._fast is None:
            return self._tokenizer.encode(text, add_special_tokens=special)
        return self._fast.encode(text, add_special_tokens=special).ids

    def _template(self, request: ChatRequest) -> str:
        if self._tokenizer.chat_template is None:
            raise ApiError(400, "This model has no chat template; use /v1/completions.", param="messages")
        try:
            return self._tokenizer.apply_chat_template(
                [_plain(message) for message in request.messages],
                tokenize=False,
                add_generation_prompt=request.add_generation_prompt and not request.continue_final_message,
                continue_final_message=request.continue_final_message,
            )
        except Exception as error:  # templates raise what they like
            raise ApiError(400, f"The chat template refused the messages: {error}", param="messages") from error


def _plain(message: Message) -> dict[str, str]:
    content = message.content
    text = "\n".join(part.text for part in content) if isinstance(content, list) else content or ""
    return {"role": message.role, "content": text} | ({"name": message.name} if message.name else {})
