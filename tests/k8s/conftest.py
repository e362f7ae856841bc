"""Which overlays do tests look at? That of each place as k8s/ has it, and one of a fleet whose models have variants."""

import contextlib
import io

import pytest

from headrace.k8s import render
from tests.k8s.built import OVERLAYS

VARIANTS = """
models:
  - name: large
    source: owner/large
    tensor_parallel: 4
    pipeline_parallel: 2
    nodes: 2
    replicas: {min: 1, max: 2}
    variants:
      - {name: w8, source: owner/large-w8, quality: 0.9, pipeline_parallel: 1, nodes: 1, replicas: {min: 1, max: 3}}
      - name: w4
        source: /var/cache/headrace/artefacts/large-w4
        quality: 0.8
        tensor_parallel: 2
        pipeline_parallel: 1
        nodes: 1
        replicas: {min: 0, max: 5}
  - name: small
    source: owner/small
    tensor_parallel: 2
    replicas: {min: 2, max: 4}
    variants:
      - {name: w4, source: owner/small-w4, quality: 0.7, tensor_parallel: 1, replicas: {min: 0, max: 2}}
router: {replicas: 2, open: true}
"""


@pytest.fixture(scope="session")
def with_variants(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The overlay of VARIANTS for production."""
    folder = tmp_path_factory.mktemp("variants")
    (folder / "fleet.yaml").write_text(VARIANTS)
    with contextlib.redirect_stdout(io.StringIO()):
        render(str(folder / "fleet.yaml"), overlay="production", out=str(folder / "k8s"))
    return str(folder / "k8s" / "overlays" / "production")


@pytest.fixture(scope="session", params=[*OVERLAYS, "variants"])
def overlay(request: pytest.FixtureRequest) -> str:
    """Its folder, as tests.k8s.built takes it."""
    return request.getfixturevalue("with_variants") if request.param == "variants" else f"overlays/{request.param}"
