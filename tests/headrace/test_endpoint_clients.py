"""What is asked of a served model and of a run, over real HTTP."""

import json
import shlex
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cluster.processes import Process
from cluster.runs import Run
from headrace import ask
from headrace.cluster_head import Head
from headrace.failure import Failure
from headrace.observe import observe
from headrace.serve_rest import ServeRefused, ServeRest, of_run
from headrace.submit import jobs_of
from tests.headrace.http_answers import listening


@dataclass
class Server:
    """A server with a prepared answer for each path, that keeps what it was sent."""

    answers: dict[str, tuple[int, str]]
    seen: list[tuple[str, str, str]] = field(default_factory=list)
    """Method and path, Authorization, body."""
    url: str = ""


@contextmanager
def serving(answers: dict[str, tuple[int, str]], tls: ssl.SSLContext | None = None) -> Iterator[Server]:
    server = Server(answers)

    def answer(method: str, path: str, authorization: str, body: str) -> tuple[int, str]:
        server.seen.append((f"{method} {path}", authorization, body))
        return server.answers.get(f"{method} {path}", (404, ""))

    with listening(answer, tls) as server.url:
        yield server


def event(text: str = "", **fields: object) -> str:
    chunk = {"choices": [{"index": 0, "delta": {"content": text}}], **fields}
    return f"data: {json.dumps(chunk)}\n\n"


def asked(server: Server) -> ask.Answer:
    answer = ask.Answer()
    assert "".join(ask.stream(server.url, ask.one_question("tiny", "Where?"), answer)) == answer.text
    return answer


def test_an_answer_is_joined_and_measured() -> None:
    usage = f"data: {json.dumps({'choices': [], 'usage': {'completion_tokens': 3}})}\n\n"
    stream = event(role="assistant") + event("In Pa") + event("ris é.") + usage + "data: [DONE]\n\n"
    with serving({"POST /v1/chat/completions": (200, stream)}) as server:
        answer = asked(server)
    assert answer.text == "In Paris é."
    assert answer.figures.startswith("3 tokens, first after ")
    sent = json.loads(server.seen[0][2])
    assert sent["stream"] is True
    assert sent["temperature"] == 0


@pytest.mark.parametrize(
    ("status", "text", "line"),
    [
        (503, '{"error": {"message": "queue full"}}', "503: queue full"),
        (500, "oops", "500: oops"),
        (200, event("half") + 'data: {"error": {"message": "engine died"}}\n\n', "engine died"),
    ],
)
def test_a_refusal_or_a_broken_stream_is_told_in_the_endpoints_words(status: int, text: str, line: str) -> None:
    with (
        serving({"POST /v1/chat/completions": (status, text)}) as server,
        pytest.raises(ask.AnswerFailed, match=line),
    ):
        asked(server)


CARD = "GET /v1/models/tiny"


def test_a_model_that_writes_is_sent_a_question() -> None:
    with serving({CARD: (200, '{"id": "tiny", "pooling": null}')}) as server:
        request = ask.sample(server.url, "tiny", "Where?")
    assert request.streams
    assert (request.path, request.body) == ("/v1/chat/completions", ask.one_question("tiny", "Where?"))


@pytest.mark.parametrize(
    ("pooling", "path", "pooled"),
    [
        ("embed", "/v1/embeddings", {"embedding": [0.25, -1.0, 0.5, 0.125, 2.0]}),
        ("classify", "/classify", {"label": "good", "probs": [0.25, -1.0, 0.5, 0.125, 2.0]}),
        ("token_embed", "/pooling", {"data": [0.25, -1.0, 0.5, 0.125, 2.0]}),
    ],
)
def test_a_model_that_pools_is_sent_a_text_and_shows_numbers(pooling: str, path: str, pooled: dict) -> None:
    said = json.dumps({"data": [pooled]})
    with serving({CARD: (200, json.dumps({"pooling": pooling})), f"POST {path}": (200, said)}) as server:
        request = ask.sample(server.url, "tiny", "Where?")
        assert not request.streams
        assert ask.numbers(server.url, request).startswith("[0.2500, -1.0000, 0.5000, 0.1250, ...]\n  5 numbers after ")
        assert f"{server.url}{path} " in ask.curl(server.url, request)
    assert json.loads(server.seen[-1][2]) == {"model": "tiny", "input": "Where?"}


def test_what_the_endpoint_does_not_know_is_told_in_its_words() -> None:
    with (
        serving({CARD: (404, '{"error": {"message": "no such model"}}')}) as server,
        pytest.raises(ask.AnswerFailed, match="404: no such model"),
    ):
        ask.sample(server.url, "tiny", "Where?")


def test_the_curl_line_works_as_pasted_whatever_is_asked() -> None:
    question = """What's "x" in $HOME? é\\n"""
    with serving({"POST /v1/chat/completions": (200, "fine")}) as server:
        line = ask.curl(server.url, ask.Sample(path=ask.CHAT, body=ask.one_question("tiny", question)))
        assert shlex.split(line)[0] == "curl"
        done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True)
    assert done.stdout == "fine"
    assert json.loads(server.seen[0][2])["messages"][0]["content"] == question


def test_serve_is_asked_with_the_token(tmp_path: Path) -> None:
    path = "/api/serve/applications/"
    answers = {
        "GET /api/ray/version": (200, "{}"),
        f"PUT {path}": (400, "no such import path"),
        f"GET {path}": (200, '{"applications": {"headrace": {}}}'),
        f"DELETE {path}": (200, ""),
    }
    with serving(answers) as server:
        rest = ServeRest(server.url, "secret")
        assert rest.is_up()
        with pytest.raises(ServeRefused, match="no such import path"):
            rest.deploy({"applications": []})
        assert rest.applications() == {"headrace": {}}
        assert rest.delete(timeout_s=5)
        assert {token for _, token, _ in server.seen} == {"Bearer secret"}
    assert not rest.is_up()
    assert rest.applications() == {}
    assert not rest.delete(timeout_s=5)


METRICS = """
headrace_queued_requests{model="tiny"} 4.0
headrace_open_requests{model="tiny"} 6.0
headrace_output_tokens_total{model="tiny"} 123.0
headrace_replica_running_requests{model="tiny",replica="r1"} 2.0
headrace_replica_verified{model="tiny",replica="r1"} 1.0
headrace_replica_running_requests{model="tiny",replica="gone"} 9.0
headrace_queued_requests{model="unknown"} 1.0
"""


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_over_tls_the_authorities_of_the_environment_are_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=headrace"]
    made += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)]
    subprocess.run(made, check=True, capture_output=True)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(cert, key)
    answers = {"GET /api/ray/version": (200, "{}"), "GET /api/version": (200, '{"ray_version": "2.60.0"}')}
    answers["POST /v1/chat/completions"] = (200, event("Paris") + "data: [DONE]\n\n")
    with serving(answers, tls) as server:
        stranger = ServeRest(server.url, "secret")
        assert not stranger.is_up()
        with pytest.raises(ask.AnswerFailed, match="CERTIFICATE_VERIFY_FAILED"):
            asked(server)
        with pytest.raises(Failure, match="takes no jobs"):
            jobs_of(Head(stranger, "there", None))
        monkeypatch.setenv("SSL_CERT_FILE", str(cert))
        known = ServeRest(server.url, "secret")
        assert known.is_up()
        assert asked(server).text == "Paris"
        jobs_of(Head(known, "there", None))  # it asks at once
        for rest in (stranger, known):
            rest.close()
    assert ("GET /api/version", "Bearer secret", "") in server.seen


def test_certificates_that_are_not_there_matter_over_tls_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "nowhere.pem"))
    ServeRest("http://127.0.0.1:1", None).close()
    with pytest.raises(Failure, match=r"SSL_CERT_FILE or SSL_CERT_DIR: there are no certificates in .*nowhere\.pem"):
        ServeRest("https://127.0.0.1:1", None)


def test_a_run_is_seen_by_serve_and_by_its_router_together(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret")
    replicas = [{"replica_id": "r1", "state": "RUNNING"}, {"replica_id": "r2", "state": "STARTING"}]
    deployments = {"engine-tiny": {"replicas": replicas}, "router": {"replicas": [replicas[0]]}}
    details = json.dumps({"applications": {"headrace": {"deployments": deployments}}})
    answers = {"GET /api/serve/applications/": (200, details), "GET /metrics": (200, METRICS)}
    with serving(answers) as server:
        run = Run(
            name="default",
            id="x",
            driver=Process(pid=1, started_ticks=1),
            url=server.url,
            models=("tiny", "second"),
            folder=str(tmp_path),
            dashboard_url=server.url,
            started_at_s=0.0,
        )
        seen = observe(run, of_run(run))
    assert seen["tiny"].counts == {"queued_requests": 4, "open_requests": 6, "output_tokens": 123}
    assert seen["tiny"].replicas["r1"].load == {"running_requests": 2, "verified": 1}
    assert (seen["tiny"].replicas["r2"].state, seen["tiny"].replicas["r2"].load) == ("starting", {})
    assert (seen["second"].replicas, seen["second"].counts) == ({}, {})
