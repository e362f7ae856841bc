"""Does a fleet over several machines lose anything when a machine, its head or a cable goes?"""

import asyncio
import time
from collections.abc import Callable, Iterator

import pytest

from tests.e2e.clients import Load, under
from tests.e2e.fleet_on_nodes import ANSWER_TOKENS, ENGINES, STARTS_S, Cluster, Said, fleet_on_nodes, said, streams
from tests.e2e.nodes import until

pytestmark = [pytest.mark.prove, pytest.mark.timeout(1800)]

HEAD_GONE_S = 60.0
CUT_S = 10.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with fleet_on_nodes(tmp_path_factory.mktemp("nodes")) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def undisturbed(cluster: Cluster) -> list[Said]:
    return said(cluster.url("a"))


def test_a_cable_that_is_pulled_for_a_while_loses_and_doubles_nothing(
    cluster: Cluster, undisturbed: list[Said], record_property: Callable[[str, object], None]
) -> None:
    def cut() -> None:
        cluster.machine("b").cut()
        time.sleep(CUT_S)
        cluster.machine("b").plug()

    before = cluster.continued("a")
    assert asyncio.run(streams([cluster.url("a")], cut)) == undisturbed
    record_property("streams that went on elsewhere when a cable was pulled for 10 s", cluster.continued("a") - before)
    healed_s = until(cluster.is_whole, "both engines at both routers")
    record_property("whole again, s after the answers", round(healed_s, 1))
    assert said(cluster.url("b")) == undisturbed


def test_a_machine_that_dies_under_a_hundred_streams_loses_none_of_another_s_router(
    cluster: Cluster, undisturbed: list[Said], record_property: Callable[[str, object], None]
) -> None:
    before = cluster.continued("a")
    assert asyncio.run(streams([cluster.url("a")], cluster.machine("b").kill)) == undisturbed
    record_property("streams that went on elsewhere when a machine died", cluster.continued("a") - before)
    cluster.machine("b").plug()
    cluster.start_node("b", core=1)
    back_s = until(cluster.is_whole, "an engine on the machine that came back", STARTS_S)
    record_property("a machine is back and serves, s", round(back_s))
    assert said(cluster.balanced) == undisturbed


def test_without_its_head_the_fleet_serves_and_control_comes_back_by_itself(
    cluster: Cluster, record_property: Callable[[str, object], None]
) -> None:
    load = Load(streams=2, quick=4)

    async def used() -> None:
        async with under(load, cluster.balanced, stream_tokens=ANSWER_TOKENS):
            cluster.machine("head").kill()
            await asyncio.sleep(HEAD_GONE_S)
            cluster.machine("head").plug()
            await asyncio.to_thread(cluster.start_head)

    asyncio.run(used())
    record_property("requests while the head was gone for 60 s and came back", dict(load.outcomes))
    record_property("the longest short request, s", round(max(load.quick_s), 1))
    assert load.outcomes.keys() == {"whole"}
    record_property("Serve knows its fleet, s after the head", round(until(cluster.is_whole, "Serve's word"), 1))
    again = cluster.deploy()
    assert "nothing to change" in again.stdout, again
    cluster.process("b", f"ServeReplica:headrace:{ENGINES}").kill()
    until(lambda: not cluster.is_whole(), "word of a replica's end")
    back_s = until(cluster.is_whole, "another engine", STARTS_S)
    record_property("an engine that was killed after that is replaced, s", round(back_s))
