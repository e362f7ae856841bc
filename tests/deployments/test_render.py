"""Which ids does a chat or a text become, and what is said when the template refuses?"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from deployments.openai_wire import ApiError, ChatRequest, Message, TextPart
from deployments.render import INLINE_CHARACTERS, Renderer

pytestmark = pytest.mark.anyio

BEGIN = 0


@pytest.fixture(scope="module")
def tokenizer(tokenizer_folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(tokenizer_folder)


@pytest.fixture(scope="module")
def renderer(tokenizer_folder: Path) -> Any:
    with ThreadPoolExecutor(max_workers=1) as threads:
        yield Renderer(str(tokenizer_folder), threads)


def chat(*messages: Message, **options: Any) -> ChatRequest:
    return ChatRequest(model="m", messages=list(messages), **options)


HELLO = Message(role="user", content="Grüße 🚰")


async def test_a_chat_follows_the_template_and_the_template_brings_its_own_special_tokens(
    renderer: Renderer, tokenizer: Any
) -> None:
    ids = await renderer.chat(chat(HELLO))
    assert tokenizer.decode(ids) == "<user>Grüße 🚰\n<assistant>"
    assert BEGIN not in ids
    assert await renderer.chat(chat(HELLO, add_special_tokens=True)) == [BEGIN, *ids]


async def test_a_text_gets_special_tokens_unless_they_are_refused(renderer: Renderer, tokenizer: Any) -> None:
    ids = await renderer.text("Grüße", add_special_tokens=False)
    assert tokenizer.decode(ids) == "Grüße"
    assert await renderer.text("Grüße", add_special_tokens=True) == [BEGIN, *ids]


async def test_parts_of_text_are_joined_by_lines_and_names_are_passed_on(renderer: Renderer, tokenizer: Any) -> None:
    parts = Message(role="user", content=[TextPart("text", "a"), TextPart("text", "b")], name="ann")
    assert tokenizer.decode(await renderer.chat(chat(parts))) == "<user ann>a\nb\n<assistant>"


async def test_the_last_message_can_be_continued(renderer: Renderer, tokenizer: Any) -> None:
    begun = Message(role="assistant", content="It is")
    ids = await renderer.chat(chat(HELLO, begun, continue_final_message=True))
    assert tokenizer.decode(ids) == "<user>Grüße 🚰\n<assistant>It is"


async def test_no_generation_prompt_when_none_is_wanted(renderer: Renderer, tokenizer: Any) -> None:
    assert tokenizer.decode(await renderer.chat(chat(HELLO, add_generation_prompt=False))) == "<user>Grüße 🚰\n"


async def test_a_message_without_content_is_empty(renderer: Renderer, tokenizer: Any) -> None:
    assert tokenizer.decode(await renderer.chat(chat(Message(role="user")))) == "<user>\n<assistant>"


async def test_a_long_text_becomes_the_same_ids_in_a_thread(renderer: Renderer) -> None:
    half = "fließt 🚰 " * (INLINE_CHARACTERS // 16)
    inline = await renderer.text(half, add_special_tokens=False)
    assert len(half) <= INLINE_CHARACTERS < 2 * len(half)
    assert await renderer.text(half + half, add_special_tokens=False) == inline + inline


async def test_what_the_template_refuses_is_the_client_s_fault_in_the_template_s_words(
    renderer: Renderer,
) -> None:
    with pytest.raises(ApiError, match="refused the messages: no tools here") as refused:
        await renderer.chat(chat(Message(role="tool", content="x")))
    assert (refused.value.status, refused.value.body["error"]["param"]) == (400, "messages")


async def test_a_model_without_a_template_points_to_completions(tokenizer_folder: Path, tmp_path: Path) -> None:
    plain = AutoTokenizer.from_pretrained(tokenizer_folder)
    plain.chat_template = None
    plain.save_pretrained(tmp_path)
    with ThreadPoolExecutor(max_workers=1) as threads:
        renderer = Renderer(str(tmp_path), threads)
        with pytest.raises(ApiError, match="no chat template; use /v1/completions"):
            await renderer.chat(chat(HELLO))
