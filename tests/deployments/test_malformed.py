"""Does the HTTP interface survive what no client should send, without an error of its own and with nothing left?"""

import asyncio
import random
from collections.abc import Callable

import httpx
import pytest
from scipy.stats import linregress

from tests.deployments.fake_server import FakeServer
from tests.deployments.malformed_client import Heard, send_malformed

REQUESTS = 2_000
MANY_REQUESTS = 100_000
WARM_UP_REQUESTS = 30_000
BETWEEN_LOOKS = 2_000
MOST_BYTES_PER_REQUEST = 20
"""Of memory that grows: 2 MB in 100,000 requests."""


def throw(server: FakeServer, seed: int, count: int) -> Heard:
    """Sends them; then nothing may be open, no error logged, and the next client be served."""
    idle = server.state()
    heard = Heard()
    asyncio.run(send_malformed(server.port, random.Random(seed), count, heard))
    assert not heard.wrong, heard.wrong[0]
    rest = server.settle(idle)
    assert rest["errors"] == []
    assert (rest["open"], rest["queued_tokens"]) == (0, 0)
    assert rest["tasks"] <= idle["tasks"]
    assert rest["sockets"] <= idle["sockets"]
    body = {"model": "tiny", "prompt": "x", "max_tokens": 3}
    answer = httpx.post(f"http://127.0.0.1:{server.port}/v1/completions", json=body, trust_env=False)
    assert answer.json()["usage"]["completion_tokens"] == 3
    return heard


def test_malformed_requests_are_refused_or_answered_and_leave_nothing(server: FakeServer) -> None:
    heard = throw(server, seed=1, count=REQUESTS)
    told = {status for _, status in heard.statuses}
    assert {200, 400, 404, 405, 0} <= told, "all kinds of ends were met"


@pytest.mark.prove
@pytest.mark.timeout(3600)
def test_a_hundred_thousand_of_them_leave_no_memory_behind(
    server: FakeServer, record_property: Callable[[str, object], None]
) -> None:
    throw(server, seed=2, count=WARM_UP_REQUESTS)
    sizes, statuses = [server.state()["unique_bytes"]], Heard().statuses
    for seed in range(3, 3 + MANY_REQUESTS // BETWEEN_LOOKS):
        statuses += throw(server, seed=seed, count=BETWEEN_LOOKS).statuses
        sizes.append(server.state()["unique_bytes"])
    fit = linregress([number * BETWEEN_LOOKS for number in range(len(sizes))], sizes)
    for status in sorted({status for _, status in statuses}):
        record_property(f"status_{status}", sum(count for (_, told), count in statuses.items() if told == status))
    record_property("bytes_per_request", round(fit.slope, 2))
    record_property("bytes_per_request_standard_error", round(fit.stderr, 2))
    record_property("unique_bytes", " ".join(map(str, sizes)))
    assert fit.slope < MOST_BYTES_PER_REQUEST
