"""What do the tests of the serving path share? The event loop of routers and engines, and a tokenizer."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from deployments.fleet import sqlite_url
from deployments.store import Store
from headrace.fetching import resolve
from tests.deployments import postgres_server, two_servers
from tests.deployments.fake_engine import FakeEngine
from tests.deployments.fake_server import FakeServer, fake_server
from tests.deployments.http_served import Served, idle, serve
from tests.deployments.lane_ends import Door, check, make_door, turn

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message.role == 'tool' %}{{ raise_exception('no tools here') }}{% endif %}"
    "<{{ message.role }}{% if message.name %} {{ message.name }}{% endif %}>{{ message.content }}\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """URL of a real server."""
    if (programs := postgres_server.programs()) is None:
        pytest.skip("no PostgreSQL server is installed here")
    with postgres_server.postgres_server(programs) as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty store."""
    if request.param == "sqlite":
        return sqlite_url(tmp_path / "there" / "store.sqlite")
    return postgres_server.empty_database(request.getfixturevalue("postgres"))


@pytest.fixture
def opened(url: str) -> Iterator[Store]:
    store = Store(url)
    yield store
    store.close()


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer whose tokens are bytes, and one that begins a text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<begin>": 0} | {letter: number for number, letter in enumerate(alphabet, 1)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single="<begin> $A", special_tokens=[("<begin>", 0)])
    folder = tmp_path_factory.mktemp("tokenizer")
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<begin>")
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def server(tokenizer_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeServer]:
    """A router's HTTP server in a process of its own, which must have nothing open in the end."""
    with fake_server(tokenizer_folder, tmp_path_factory.mktemp("kept")) as server:
        idle = server.state()
        yield server
        rest = server.settle(idle)
        assert (rest["open"], rest["errors"]) == (0, [])


@pytest.fixture(scope="module")
async def shared(tokenizer_folder: Path) -> AsyncIterator[Served]:
    async with serve(tokenizer_folder, FakeEngine(slots=4)) as served:
        yield served


@pytest.fixture
async def served(shared: Served) -> AsyncIterator[Served]:
    """A server that must have nothing left at the end, whatever its clients did."""
    shared.engine.forget()
    yield shared
    await idle(shared)


@pytest.fixture
async def fresh(tokenizer_folder: Path) -> AsyncIterator[Served]:
    """A server that a test may break."""
    async with serve(tokenizer_folder, FakeEngine(slots=4)) as served:
        yield served


@pytest.fixture(scope="package")
def pair() -> Iterator[two_servers.Pair]:
    """Our server and vLLM's with the same trained model in float32, so that greedy answers can be compared."""
    engine = {"dtype": "float32", "max_num_seqs": 8, "kv_cache_memory_bytes": 64 << 20}
    tools = {"enable_auto_tool_choice": True, "tool_call_parser": "hermes"}
    with two_servers.pair(resolve("tiny"), engine | tools) as servers:
        yield servers


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    """A lane and who enters it, whose laws hold at the end."""
    door = make_door()
    yield door
    await turn()
    check(door.lane, door.tickets)
