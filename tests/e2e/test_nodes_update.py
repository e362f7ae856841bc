"""Does a fleet over several machines lose anything when it is updated, or a machine is taken away with a notice?

Clients come by a balancer that asks each machine for /ready: routers may come to lie on any of them.
"""

import asyncio
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.clients import Load, under
from tests.e2e.fleet_on_nodes import (
    ANSWER_TOKENS,
    ENGINES,
    ROUTERS,
    STARTS_S,
    Cluster,
    Said,
    fleet_on_nodes,
    said,
    streams,
)
from tests.e2e.nodes import until

pytestmark = [pytest.mark.prove, pytest.mark.timeout(1800)]

SHORT_S, LONG_S = 120, 1500
"""Notices: as clouds give for what they take back, and one in which what goes can be replaced before."""
BETTER = ("max_num_seqs: 128", "max_num_seqs: 96")
WORSE = ("kv_cache_memory_bytes", "load_format: pt, kv_cache_memory_bytes")
"""Of weights in a format that the checkpoint does not have: seen by the engine alone, when it starts."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with fleet_on_nodes(tmp_path_factory.mktemp("nodes")) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def undisturbed(cluster: Cluster) -> list[Said]:
    return said(cluster.balanced)


def test_a_machine_taken_away_after_a_short_notice_cuts_nothing(
    cluster: Cluster, undisturbed: list[Said], record_property: Callable[[str, object], None]
) -> None:
    """What lies there ends at once; then it starts elsewhere. Half of the streams come by that machine's router."""
    cluster.start_node("c", core=1)
    until(lambda: cluster.joined("c"), "another machine")
    assert cluster.places(ROUTERS) == {"a", "b"}
    by_both = [cluster.url("a"), cluster.url("b")]
    assert asyncio.run(streams(by_both, lambda: cluster.drain("b", SHORT_S))) == undisturbed
    gone_s = until(lambda: not cluster.machine("b").carries_ray(), "its end by itself", SHORT_S + 30)
    cluster.machine("b").kill()
    record_property("a machine ended by itself, s after its last answer", round(gone_s))
    replaced_s = until(cluster.is_whole, "what lay there on another", STARTS_S)
    record_property("what lay there serves on another, s after that", round(replaced_s))
    assert cluster.places(ENGINES) == {"a", "c"}
    assert said(cluster.balanced) == undisturbed


def test_a_machine_taken_away_after_a_long_notice_is_replaced_before(
    cluster: Cluster, record_property: Callable[[str, object], None]
) -> None:
    (leaving,) = cluster.places(ENGINES) - {"a"}
    arriving = "c" if leaving == "b" else "b"
    cluster.machine(arriving).plug()
    cluster.start_node(arriving, core=1)
    until(lambda: cluster.joined(arriving), "another machine")
    load, serving = Load(streams=2, quick=2), set[int]()

    def moved() -> bool:
        if found := cluster.replicas(ENGINES):
            serving.add(sum(one["state"] in ("RUNNING", "PENDING_MIGRATION") for one in found))
        return not cluster.machine(leaving).carries_ray() and cluster.is_whole()

    async def used() -> None:
        async with under(load, cluster.balanced, stream_tokens=ANSWER_TOKENS):
            await asyncio.to_thread(cluster.drain, leaving, LONG_S)
            await asyncio.to_thread(until, moved, "its replacement and end", STARTS_S)

    asyncio.run(used())
    record_property("requests while a machine was replaced", dict(load.outcomes))
    assert load.outcomes.keys() == {"whole"}
    assert cluster.places(ENGINES) == {"a", arriving}
    assert min(serving) == 2, "engines at any moment"


def deployed(cluster: Cluster, load: Load, file: Path) -> subprocess.CompletedProcess[str]:
    """`headrace deploy` of a file while clients ask."""

    async def used() -> subprocess.CompletedProcess[str]:
        async with under(load, cluster.balanced, stream_tokens=ANSWER_TOKENS):
            return await asyncio.to_thread(cluster.deploy, file)

    return asyncio.run(used())


def test_an_update_by_command_fails_no_request(
    cluster: Cluster, record_property: Callable[[str, object], None]
) -> None:
    load = Load(streams=2, quick=2)
    done = deployed(cluster, load, cluster.changed(*BETTER))
    record_property("requests while all was replaced", dict(load.outcomes))
    record_property("the longest short request, s", round(max(load.quick_s), 1))
    assert done.returncode == 0, done.stdout + done.stderr
    assert load.outcomes.keys() == {"whole"}
    until(cluster.is_whole, "both engines at both routers")
    cluster.changed(*BETTER).rename(cluster.file)


def test_an_update_that_can_not_start_is_taken_back_and_fails_no_request(
    cluster: Cluster, record_property: Callable[[str, object], None]
) -> None:
    load = Load(streams=2, quick=2)
    bad = cluster.changed(*WORSE)
    failed = deployed(cluster, load, bad)
    record_property("requests while a bad update was tried and taken back", dict(load.outcomes))
    assert failed.returncode == 1, failed.stdout + failed.stderr
    assert failed.stderr == "headrace: the update failed, and what ran before runs again\n"
    assert load.outcomes.keys() == {"whole"}
    assert "nothing to change" in cluster.deploy().stdout
    until(cluster.is_whole, "both engines at both routers")
