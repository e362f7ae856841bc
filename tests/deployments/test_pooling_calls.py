"""Does everything asked of a model that pools reach vLLM's own application, and no medium unasked for?"""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from deployments.forward import Allowed, check
from deployments.openai_wire import ApiError
from tests.deployments.fake_engine import FakeEngine
from tests.deployments.http_served import MODEL, Served, serve

PICTURE = {"content": [{"type": "image_url", "image_url": {"url": "http://example.org/a.png"}}]}


@pytest.fixture(scope="module")
async def served(tokenizer_folder: Path) -> AsyncIterator[Served]:
    async with serve(tokenizer_folder, FakeEngine(slots=4)) as served:
        for replica in served.lane.replicas.values():
            replica.facts["pooling"] = "embed"
        yield served


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]}),
        ("/v1/completions", {"prompt": "x"}),
        ("/v1/embeddings", {"input": "x"}),
    ],
)
async def test_vllm_answers_whatever_a_model_that_pools_is_asked(served: Served, path: str, body: Any) -> None:
    said = (await served.http.post(path, json={"model": MODEL} | body)).json()
    assert (said["method"], said["path"]) == ("POST", path)


@pytest.mark.parametrize("path", ["/score", "/v1/score", "/rerank", "/v1/rerank", "/v2/rerank"])
def test_documents_to_score_may_not_name_pictures_elsewhere(path: str) -> None:
    with pytest.raises(ApiError, match="'documents'"):
        check(path, {"documents": [PICTURE]}, Allowed())
    check(path, {"documents": [PICTURE]}, Allowed(media_urls=True))
    check(path, {"documents": ["http://example.org/a.png is a text here"]}, Allowed())


def test_pictures_to_embed_come_inline() -> None:
    with pytest.raises(ApiError, match="'images'"):
        check("/v2/embed", {"images": ["data:image/png;base64,AAAA", "http://example.org/a.png"]}, Allowed())
    check("/v2/embed", {"images": ["data:image/png;base64,AAAA"]}, Allowed())
    check("/v2/embed", {"images": ["http://example.org/a.png"]}, Allowed(media_urls=True))
