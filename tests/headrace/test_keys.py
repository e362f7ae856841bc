"""Can who holds a tenant's key talk to a fleet, and is who holds none told so in one line?"""

import io
import json
import subprocess
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import pytest
from rich.console import Console

from cluster.processes import Process
from cluster.runs import Run
from deployments.fleet import Fleet, validate
from headrace import ask, driver
from headrace.chat import chat
from headrace.door import key_for
from headrace.driver import Wish
from headrace.failure import Failure
from headrace.steps import Steps
from tests.headrace.test_endpoint_clients import CARD, event, serving

KEY = "sk-alpha-ü"
NAMED = "Bearer sk-alpha-ü".encode().decode("latin-1")
SAID = event("Paris.") + f"data: {json.dumps({'choices': [], 'usage': {'completion_tokens': 1}})}\n\n"
ANSWERS = {
    "GET /v1/models": (200, '{"data": [{"id": "tiny", "pooling": null}]}'),
    CARD: (200, '{"id": "tiny", "pooling": null}'),
    "POST /v1/chat/completions": (200, SAID + "data: [DONE]\n\n"),
}


@pytest.fixture(autouse=True)
def no_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_STATE", str(tmp_path))


def fleet(*keys: str) -> Fleet:
    hashes = [sha256(key.encode()).hexdigest() for key in keys]
    tenants = [{"name": "alpha", "key_hashes": hashes}] if keys else []
    return validate({"models": [{"name": "tiny", "source": "tiny"}], "tenants": tenants})


def test_a_fleet_without_tenants_needs_no_key() -> None:
    assert key_for(fleet(), None, asks=True, name="default") is None
    assert key_for(fleet(), KEY, asks=True, name="default") is None


def test_a_question_to_a_fleet_with_tenants_needs_a_key_of_one() -> None:
    assert key_for(fleet("sk-other", KEY), KEY, asks=True, name="default") == KEY
    for key, line in ((None, "--ask: this fleet asks for a key"), ("sk-none", "is no key of this fleet")):
        with pytest.raises(Failure, match=line) as refused:
            key_for(fleet(KEY), key, asks=True, name="default")
        assert refused.value.exit_code == 2
        assert "sk-none" not in str(refused.value)
        assert key_for(fleet(KEY), key, asks=False, name="default") is None


@dataclass
class Live:
    """A run that serves, without a Ray."""

    run: Run
    serving: bool = False
    ready: list[bool] = field(default_factory=list)

    def says_ready(self) -> None:
        self.ready.append(True)


def served(url: str, wish: Wish) -> str:
    """What `serve --once` says when the fleet is ready."""
    said = io.StringIO()
    driven = Process(pid=1, started_ticks=1)
    run = Run(name="default", id="x", driver=driven, url=url, models=("tiny",), folder="", started_at_s=0.0)
    live = Live(run)
    driver._serve(live, wish, Steps(Console(file=said, width=200)))  # type: ignore[arg-type]
    assert live.ready
    return said.getvalue()


def test_serve_asks_with_the_key_and_shows_a_line_without_it() -> None:
    with serving(ANSWERS) as server:
        said = served(server.url, Wish(fleet=fleet(KEY), name="default", question="Where?", once=True, key=KEY))
        assert {who for _, who, _ in server.seen} == {NAMED}
    assert "Paris." in said
    assert '/v1/chat/completions -H "Authorization: Bearer $HEADRACE_API_KEY" ' in said
    assert KEY not in said


def test_serve_without_a_key_asks_nothing_and_shows_a_line_that_works_with_one() -> None:
    with serving(ANSWERS) as server:
        said = served(server.url, Wish(fleet=fleet(KEY), name="default", once=True))
        assert not server.seen
        line = said.splitlines()[-1]
        environment = {"HEADRACE_API_KEY": KEY, "PATH": "/usr/bin:/bin"}
        done = subprocess.run(["sh", "-c", line], env=environment, capture_output=True, text=True, check=True)
        assert json.loads(done.stdout)["data"][0]["id"] == "tiny"
        assert server.seen == [("GET /v1/models", NAMED, "")]


def test_without_tenants_the_line_names_no_key() -> None:
    with serving(ANSWERS) as server:
        said = served(server.url, Wish(fleet=fleet(), name="default", once=True))
        assert {who for _, who, _ in server.seen} == {""}
    assert "HEADRACE_API_KEY" not in said


def test_chat_sends_the_key(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("Where?\n"))
    with serving(ANSWERS) as server:
        chat(None, url=f"{server.url}/v1", name="default", key=KEY)
        assert [who for _, who, _ in server.seen] == [NAMED, NAMED]
    assert "Paris." in capsys.readouterr().out


@pytest.mark.parametrize(("key", "why"), [(None, "asks for a key"), ("sk-none", "does not know this key")])
def test_chat_without_a_right_key_ends_with_a_line(key: str | None, why: str) -> None:
    with serving({"GET /v1/models": (401, "{}")}) as server, pytest.raises(Failure, match=why) as refused:
        chat(None, url=server.url, name="default", key=key)
    assert refused.value.exit_code == 2
    assert "sk-none" not in str(refused.value)


def test_vectors_are_asked_for_with_the_key() -> None:
    pooled = json.dumps({"data": [{"embedding": [0.5]}]})
    with serving({CARD: (200, '{"pooling": "embed"}'), "POST /v1/embeddings": (200, pooled)}) as server:
        ask.numbers(server.url, ask.sample(server.url, "tiny", "Where?", KEY), KEY)
        assert {who for _, who, _ in server.seen} == {NAMED}
