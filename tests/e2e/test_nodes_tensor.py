"""Does a replica whose layers lie on several processes lose anything when its machine is taken away with a notice?"""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.fleet_on_nodes import ENGINES, STARTS_S, fleet_on_nodes, said, streams
from tests.e2e.nodes import until

pytestmark = [pytest.mark.prove, pytest.mark.timeout(1800)]

RANKS, NOTICE_S = 2, 120


def test_a_tensor_parallel_replica_ends_its_answers_and_starts_elsewhere(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    with fleet_on_nodes(tmp_path, ranks=RANKS) as cluster:
        undisturbed = said(cluster.balanced)
        cluster.start_node("c", core=1)
        until(lambda: cluster.joined("c"), "another machine")
        by_both = [cluster.url("a"), cluster.url("b")]
        assert asyncio.run(streams(by_both, lambda: cluster.drain("b", NOTICE_S))) == undisturbed
        gone_s = until(lambda: not cluster.machine("b").carries_ray(), "its end by itself", NOTICE_S + 30)
        record_property("a machine ended by itself, s after its last answer", round(gone_s))
        replaced_s = until(cluster.is_whole, "what lay there on another", STARTS_S)
        record_property("what lay there serves on another, s after that", round(replaced_s))
        assert cluster.places(ENGINES) == {"a", "c"}
        workers = [cluster.process("c", f"VLLM::Worker_TP{rank}") for rank in range(RANKS)]
        assert len({worker.pid for worker in workers}) == RANKS
        assert said(cluster.balanced) == undisturbed
