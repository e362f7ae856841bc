"""A Ray of ours shares nothing with any other on the machine."""

import random
import socket
from pathlib import Path

from ray._private.runtime_env.constants import RAY_JOB_CONFIG_JSON_ENV_VAR

from cluster import launch
from cluster.processes import MARK


def test_ports_are_free_and_differ() -> None:
    ports = launch.free_ports(random.Random(1))
    numbers = [getattr(ports, name) for name in ports.__slots__]
    assert len(set(numbers)) == len(numbers)
    for number in numbers:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", number))


def test_a_port_in_use_is_passed_over() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", launch.free_ports(random.Random(2)).gcs))
        assert launch.free_ports(random.Random(2)).gcs != taken.getsockname()[1]


def test_the_token_is_fresh_and_for_this_user_alone(tmp_path: Path) -> None:
    for name in ("one", "two"):
        launch.write_token(tmp_path / name)
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "one").read_text() != (tmp_path / "two").read_text()


def test_nothing_in_the_environment_leads_to_another_ray(tmp_path: Path) -> None:
    base = {
        "RAY_ADDRESS": "10.0.0.1:6379",
        "RAY_AUTH_TOKEN": "other",
        RAY_JOB_CONFIG_JSON_ENV_VAR: '{"runtime_env": {"working_dir": "gcs://of_another.zip"}}',
        "HOME": "/h",
        "VLLM_LOGGING_LEVEL": "DEBUG",
    }
    ports = launch.free_ports(random.Random(3))
    found = launch.environment(base, run_id="r1", token=tmp_path / "token", ports=ports)
    assert "RAY_ADDRESS" not in found
    assert "RAY_AUTH_TOKEN" not in found
    assert RAY_JOB_CONFIG_JSON_ENV_VAR not in found
    assert found["RAY_AUTH_TOKEN_PATH"] == str(tmp_path / "token")
    assert found[MARK] == "r1"
    assert found["HOME"] == "/h"
    assert found["VLLM_LOGGING_LEVEL"] == "DEBUG"


def test_sockets_fit_into_the_kernels_limit() -> None:
    folder = Path(f"/tmp/headrace-{2**32 - 2}/0123abcd")
    options = launch.ray_command(launch.free_ports(random.Random(4)), folder=folder, cpus=2, gpus=0)
    temporary = next(option for option in options if option.startswith("--temp-dir=")).partition("=")[2]
    longest = f"{temporary}/session_2026-11-23_21-59-08_127955_4194304/sockets/plasma_store"
    assert len(longest) <= 107
