"""Does the API do what its OpenAPI document says, for requests made up from the document?"""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.openapi import from_dict
from schemathesis.specs.openapi import checks

from deployments.forward import ROUTES
from deployments.openai_wire import ChatRequest, CompletionRequest, parse
from deployments.openapi import document
from tests.deployments.fake_server import FakeServer

WRITTEN = Path(__file__).parents[2] / "docs" / "openapi.json"
API = from_dict(document())
OPERATIONS = {operation.label: operation for operation in (result.ok() for result in API.get_all_operations())}
CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.unsupported_method,
]
EXAMPLES = 5
MANY_EXAMPLES = 1000
ASKED = [label for label in OPERATIONS if label.startswith("POST") and not label.endswith("/cancel")]
"""Those that take a body."""
PLAIN = {"/v1/chat/completions": (ChatRequest, "Chat"), "/v1/completions": (CompletionRequest, "Text")}


def test_the_document_that_is_published_is_that_of_the_code() -> None:
    """`python -m deployments.openapi > docs/openapi.json` writes it anew."""
    assert json.loads(WRITTEN.read_text()) == document()


def test_it_has_every_route_and_no_other() -> None:
    own = {"/v1/models", "/v1/models/{name}", "/health", "/ready", "/metrics"}
    files = {"/v1/files", "/v1/files/{file_id}", "/v1/files/{file_id}/content"}
    batches = {"/v1/batches", "/v1/batches/{batch_id}", "/v1/batches/{batch_id}/cancel"}
    assert document()["paths"].keys() == set(ROUTES) | own | files | batches


def hold(server: FakeServer, label: str, mode: GenerationMode, examples: int) -> None:
    """Asks for what is made up of one operation, and holds each answer to the document."""

    @seed(0)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=OPERATIONS[label].as_strategy(generation_mode=mode))
    def ask(case: schemathesis.Case) -> None:
        answer = case.call(base_url=f"http://127.0.0.1:{server.port}", timeout=20)
        case.validate_response(answer, checks=CHECKS)
        if case.operation.path in PLAIN and answer.status_code == 200:
            hold_to_plain(*PLAIN[case.operation.path], answer)

    ask()


def hold_to_plain(struct: type, name: str, answer: Any) -> None:
    """What the router itself answers has our schema, not just any."""
    request = parse(struct, answer.request.body or b"")
    if request is not None and not request.stream:
        schemas = document()["components"]["schemas"]
        jsonschema.validate(answer.json(), schemas[name] | {"components": {"schemas": schemas}})


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("label", ASKED)
def test_answers_are_as_the_document_says(server: FakeServer, label: str, mode: GenerationMode) -> None:
    hold(server, label, mode, EXAMPLES)


@pytest.mark.parametrize("label", [label for label in OPERATIONS if label not in ASKED])
def test_what_takes_no_body_answers_as_the_document_says(server: FakeServer, label: str) -> None:
    hold(server, label, GenerationMode.POSITIVE, EXAMPLES)


@pytest.mark.prove
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("label", ASKED)
def test_many_answers_are_as_the_document_says(server: FakeServer, label: str, mode: GenerationMode) -> None:
    hold(server, label, mode, MANY_EXAMPLES)
