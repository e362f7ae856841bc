"""Does a fleet over several machines lose anything when cables lose packets and are slow, or Ray's own calls fail?

Kernels without netem can't delay packets. What is there: packets lost at random and cables of little bandwidth, by tc;
and Ray's own knobs, which let its calls fail and come late.
"""

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.clients import Load, under
from tests.e2e.fleet_on_nodes import (
    ANSWER_TOKENS,
    ENGINES,
    STARTS_S,
    Cluster,
    fleet_on_nodes,
    said,
    streams,
)
from tests.e2e.nodes import until

pytestmark = [pytest.mark.prove, pytest.mark.timeout(1800)]

LOST, MBIT_S = 0.03, 4.0
FAILS = {"num_failures": -1, "req_failure_prob": 10, "resp_failure_prob": 10, "in_flight_failure_prob": 10}
"""Of a hundred calls so many fail before they are sent, after they were answered, and while they are carried out."""
LOOKED_UP = ("InternalKVGcsService.grpc_client.InternalKVGet", "ActorInfoGcsService.grpc_client.GetActorInfo")
"""What Ray tries again. Calls of actors only come late: one that fails, a check of health, say, is the end of a replica
to Serve, however well that is. Nor do those fail by which replicas are placed: Ray may lose a machine's room by that.
"""
CHAOS = {
    "RAY_testing_rpc_failure": json.dumps(dict.fromkeys(LOOKED_UP, FAILS)),
    "RAY_testing_asio_delay_us": ",".join(
        f"CoreWorkerService.{end}=1000:50000"
        for end in ("grpc_server.PushTask.HandleRequestImpl", "grpc_client.PushTask.OnReplyReceived")
    ),
}
"""By calls of actors Serve looks after replicas, and routers find engines."""


@pytest.fixture
def cluster(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    with fleet_on_nodes(tmp_path, request.param) as cluster:
        yield cluster


@pytest.mark.parametrize("cluster", [{}], indirect=True, ids=["cables"])
def test_cables_that_lose_packets_and_are_slow_lose_and_double_nothing(
    cluster: Cluster, record_property: Callable[[str, object], None]
) -> None:
    undisturbed = said(cluster.url("a"))
    machines = [cluster.machine(name) for name in ("head", "a", "b")]
    for machine in machines:
        machine.spoil(lost=LOST, mbit_s=MBIT_S)
    before = cluster.continued("a") + cluster.continued("b")
    answers = asyncio.run(streams([cluster.url("a"), cluster.url("b")]))
    record_property("packets lost", sum(machine.lost_packets() for machine in machines))
    for machine in machines:
        machine.mend()
    assert answers == undisturbed
    record_property("streams that went on elsewhere", cluster.continued("a") + cluster.continued("b") - before)
    record_property("whole again, s after the answers", round(until(cluster.is_whole, "both engines at both routers")))


@pytest.mark.parametrize("cluster", [CHAOS], indirect=True, ids=["calls"])
def test_with_calls_that_fail_a_lost_engine_is_replaced_and_no_request_fails(
    cluster: Cluster, record_property: Callable[[str, object], None]
) -> None:
    load = Load(streams=2, quick=4)

    async def used() -> None:
        async with under(load, cluster.balanced, stream_tokens=ANSWER_TOKENS):
            await asyncio.to_thread(cluster.process("b", f"ServeReplica:headrace:{ENGINES}").kill)
            await asyncio.to_thread(until, lambda: not cluster.is_whole(), "word of a replica's end")
            await asyncio.to_thread(until, cluster.is_whole, "another engine", STARTS_S)

    asyncio.run(used())
    record_property("requests while calls failed and an engine was replaced", dict(load.outcomes))
    assert load.outcomes.keys() == {"whole"}
