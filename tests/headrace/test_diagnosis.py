"""Of Serve's long messages the user sees the lines that say what was wrong."""

from typing import Any

from headrace.diagnosis import causes, failures, states

RAISED = """A replica failed to start with exception. Retrying 1 more time(s). Error:
\x1b[36mray::ServeReplica:headrace:engine-tiny.initialize_and_get_metadata()\x1b[39m (pid=2132, ip=127.0.0.1)
  File "/usr/lib/python3.11/concurrent/futures/_base.py", line 401, in __get_result
    raise self._exception
ray.exceptions.RayTaskError(RuntimeError): wrapped
RuntimeError: Traceback (most recent call last):
  File "/usr/lib/python3.11/site-packages/ray/serve/_private/replica.py", line 4010, in _call_func_or_gen
    result = await result
  File "/src/deployments/engine.py", line 47, in __init__
    self._link = EngineEnd(
{cause}
"""
OURS = RAISED.format(cause="RuntimeError: [headrace] tiny: numbers check failed: it differs by 3.1 nats")
THEIRS = RAISED.format(cause="torch.OutOfMemoryError: 3 GiB wanted, 2 GiB free")
KILLED = """A replica failed to start with exception. Retrying 1 more time(s). Error:
ray.exceptions.ActorDiedError: The actor died unexpectedly before finishing this task.
\tclass_name: ServeReplica:headrace:engine-tiny
\tThe actor is dead because its worker process has died. Worker exit detail: killed by signal 9."""


def application(
    *, of_app: str = "", status: str = "DEPLOYING", of_engine: str = "", replicas: tuple[str, ...] = ()
) -> dict[str, Any]:
    engine = {
        "status": "UPDATING",
        "message": of_engine,
        "replicas": [{"state": state} for state in replicas],
    }
    return {"headrace": {"status": status, "message": of_app, "deployments": {"engine-tiny": engine}}}


def test_a_line_of_our_own_is_all_that_is_shown() -> None:
    assert causes(OURS) == ["tiny: numbers check failed: it differs by 3.1 nats"]


def test_without_one_the_innermost_exception_is_shown() -> None:
    assert causes(THEIRS) == ["torch.OutOfMemoryError: 3 GiB wanted, 2 GiB free"]


def test_of_a_killed_replica_its_end_is_shown() -> None:
    assert causes(KILLED)[0].startswith("ray.exceptions.ActorDiedError: The actor died unexpectedly")
    assert causes(KILLED)[1].endswith("Worker exit detail: killed by signal 9.")


def test_anything_else_is_shown_by_its_last_line_and_nothing_by_none() -> None:
    assert causes("Something\nhappened.\n") == ["happened."]
    assert causes("") == []


def test_the_first_failed_start_counts_before_serve_gives_up() -> None:
    assert failures(application()) == []
    assert failures(application(of_engine=OURS)) == ["engine-tiny: tiny: numbers check failed: it differs by 3.1 nats"]


def test_a_fleet_that_could_not_be_built_is_told_by_the_application() -> None:
    found = failures(application(of_app="ImportError: no such module", status="DEPLOY_FAILED"))
    assert found == ["ImportError: no such module"]


def test_slow_scheduling_is_no_failure() -> None:
    assert failures(application(of_engine="1 replicas that have taken more than 30s to be scheduled.")) == []


def test_states_are_counted_by_deployment() -> None:
    found = states(application(replicas=("RUNNING", "STARTING", "RUNNING")))
    assert found == "engine-tiny 2 running + 1 starting"
    assert states(application()) == "engine-tiny waiting"
