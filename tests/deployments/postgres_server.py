"""What stands for a PostgreSQL in tests? A real server, where one is installed."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from sqlalchemy import Connection, create_engine, text


@contextmanager
def postgres_server(programs: Path) -> Iterator[str]:
    """URL of a server on a Unix socket of its own."""
    user = "postgres" if os.geteuid() == 0 else None  # it refuses to run as root
    # Not in pytest's folder, which only its own user may enter.
    with TemporaryDirectory(prefix="headrace-store-") as name:
        folder, data = Path(name), Path(name) / "data"
        if user:
            shutil.chown(folder, user)
        make = [programs / "initdb", "--no-sync", "-A", "trust", "-U", "headrace", "-D", data]
        subprocess.run(make, user=user, cwd=folder, check=True, stdout=subprocess.DEVNULL, timeout=120)
        serve = [programs / "postgres", "-D", data, "-k", folder, "-h", "", "-F"]
        with subprocess.Popen(serve, user=user, cwd=folder, stderr=subprocess.PIPE, text=True) as server:
            assert server.stderr is not None
            assert any("ready to accept connections" in line for line in server.stderr)
            try:
                yield f"postgresql+psycopg://headrace@/postgres?host={folder}"
            finally:
                server.send_signal(signal.SIGQUIT)
                server.stderr.read()


def programs() -> Path | None:
    """Where they are; None: nowhere."""
    found = shutil.which("initdb")
    places = [Path(found).parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return places[-1] if places else None


@contextmanager
def connected(url: str) -> Iterator[Connection]:
    engine = create_engine(url)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def empty_database(server: str) -> str:
    """URL of a new one."""
    name = f"store_{os.urandom(4).hex()}"
    with connected(server) as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").execute(text(f"CREATE DATABASE {name}"))
    return server.replace("/postgres?", f"/{name}?")
