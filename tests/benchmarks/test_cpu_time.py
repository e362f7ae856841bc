"""Is CPU time of real processes read and told apart?"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

from benchmarks.cpu_time import Part, parts_of_fleet, parts_of_ray_llm, parts_of_vllm, read
from cluster.processes import MARK

BURN = """
import sys, time
while time.process_time() < 0.3: pass
print("burnt", flush=True)
sys.stdin.read()
"""
IDLE = """
import sys
print("up", flush=True)
sys.stdin.read()
"""
PARENT = """
import subprocess, sys
child = subprocess.Popen(["/proc/self/exe", "-c", sys.argv[1]], stdout=subprocess.PIPE)
print(child.stdout.readline().decode(), end="", flush=True)
sys.stdin.read()
"""


@contextmanager
def running(*command: str, run_id: str = "") -> Iterator[subprocess.Popen[str]]:
    """A process that has said its first line; it and its children end with their stdin."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | ({MARK: run_id} if run_id else {}),
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
    finally:
        process.communicate()


def test_a_server_is_the_path_and_its_descendants_are_the_core() -> None:
    with running(sys.executable, "-c", PARENT, BURN) as server:
        used = {part: used_s for part, used_s in read(lambda: parts_of_vllm(server.pid)).used_s.values()}
    assert set(used) == {Part.API_SERVER, Part.CORE}
    assert used[Part.CORE] >= 0.25  # 0.3, each time rounded down to 10 ms
    assert used[Part.API_SERVER] < used[Part.CORE]


def test_what_was_used_before_the_first_reading_does_not_count() -> None:
    with running(sys.executable, "-c", BURN) as server:
        first = read(lambda: parts_of_vllm(server.pid))
        later = read(lambda: parts_of_vllm(server.pid))
    assert first.used_s[next(iter(first.used_s))][1] >= 0.25
    assert later.since(first)[Part.API_SERVER] < 0.1


def test_parts_of_a_fleet_are_told_by_title_and_parentage() -> None:
    run_id = f"benchmark-{os.getpid()}"
    with (
        renamed("ray::ServeReplica:headrace:engine-m", PARENT, IDLE, run_id=run_id) as engine,
        renamed("ray::ServeReplica:headrace:router", IDLE, run_id=run_id) as router,
        running(sys.executable, "-c", IDLE, run_id=run_id) as other,
    ):
        parts = {process.pid: part for process, part in parts_of_fleet(run_id)}
        assert parts.pop(engine.pid) is Part.ENGINE
        assert parts.pop(router.pid) is Part.ROUTER
        assert parts.pop(other.pid) is Part.RAY
        assert list(parts.values()) == [Part.CORE]


def test_parts_of_rays_own_layer_are_told_alike() -> None:
    run_id = f"benchmark-{os.getpid()}"
    titles = ["ray::ServeReplica:llm:OpenAiIngress", "ray::ServeReplica:llm:LLMRouter", "ray::ProxyActor"]
    titles += ["/where/bin/haproxy -W", "ray::HAProxyManager", "ray::ServeController"]
    with ExitStack() as stack:
        engine = stack.enter_context(renamed("ray::ServeReplica:llm:LLMServer:m", PARENT, IDLE, run_id=run_id))
        others = [stack.enter_context(renamed(title, IDLE, run_id=run_id)) for title in titles]
        parts = {process.pid: part for process, part in parts_of_ray_llm(run_id)}
    assert parts.pop(engine.pid) is Part.ENGINE
    expected = [Part.ROUTER, Part.ROUTER, Part.PROXY, Part.PROXY, Part.RAY, Part.RAY]
    assert [parts.pop(other.pid) for other in others] == expected
    assert list(parts.values()) == [Part.CORE]


def renamed(title: str, *code: str, run_id: str) -> AbstractContextManager[subprocess.Popen[str]]:
    """A Python process whose command line begins with a title, as Ray's replicas' do."""
    return running("bash", "-c", 'exec -a "$0" "$@"', title, sys.executable, "-c", *code, run_id=run_id)
