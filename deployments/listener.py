"""How do the routers of a fleet on one machine share a listening socket, so that none takes a connection with it?

Sockets that share a port by SO_REUSEPORT have a queue each, and one that closes resets what is queued on it. So there
is one socket with one queue: the first router binds it, each later one is handed it over a Unix socket by any that
lives, and it closes when its last holder has left or died.
"""

import os
import secrets
import socket
import struct
import threading
from contextlib import suppress
from pathlib import Path

from filelock import FileLock

PATIENCE_S = 5.0
"""For a router that is asked for the socket, and for others that take or leave it at the same time."""
BACKLOG = 2048
"""Connections that may wait to be accepted; the system allows 4096 at most unless told otherwise."""


class Listener:
    """A listening socket that this process holds, and hands to others as long as it does."""

    def __init__(self, sock: socket.socket, folder: Path, fleet: str) -> None:
        self.socket = sock
        self._folder = folder
        self._path = folder / f"{fleet}-{os.getpid()}-{secrets.token_hex(3)}"
        self._door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._door.bind(str(self._path))
        self._door.listen()
        # A thread: a router's event loop may be busy for longer than another's start can wait.
        threading.Thread(target=self._hand_out, name="listener", daemon=True).start()

    @property
    def held(self) -> bool:
        """Whether it has not been left."""
        return self.socket.fileno() >= 0

    def leave(self) -> None:
        """Gives the socket up. What is queued on it is the other holders'; without any it is reset."""
        alone = _alone(self._folder)
        with suppress(OSError):  # whoever hangs in there keeps nobody here
            alone.acquire()
        self._path.unlink(missing_ok=True)
        with suppress(OSError):
            self._door.shutdown(socket.SHUT_RDWR)  # ends the thread's accept(); close() would not
        self._door.close()
        self.socket.close()
        alone.release()

    def _hand_out(self) -> None:
        while True:
            try:
                asking, _ = self._door.accept()
            except OSError:
                return
            with asking, suppress(OSError):  # it may be gone, or only have looked
                if _is_mine(asking):
                    socket.send_fds(asking, [b"."], [self.socket.fileno()])


def listen(host: str, port: int, *, folder: Path, fleet: str) -> Listener:
    """The socket on which the routers of `fleet` listen that meet in `folder`. Raises OSError when it can't be had.

    Another fleet on the same port is refused like any other program.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _alone(folder):
        shared = [sock for path in folder.glob("*-*-*") if (sock := _ask(path, fleet)) is not None]
        for other in shared[1:]:
            other.close()
        return Listener(shared[0] if shared else _bind(host, port), folder, fleet)


def _alone(folder: Path) -> FileLock:
    """While held, nobody else takes or leaves the socket."""
    return FileLock(folder / "lock", timeout=PATIENCE_S)


def _ask(path: Path, fleet: str) -> socket.socket | None:
    """The socket of the router behind a door, if it is of this fleet. The door of a dead one is cleared away."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.settimeout(PATIENCE_S)
        try:
            asking.connect(str(path))
            wanted = path.name.startswith(f"{fleet}-") and _is_mine(asking)
            descriptors = socket.recv_fds(asking, 1, 1)[1] if wanted else []
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return None
        except OSError:
            return None
    return socket.socket(fileno=descriptors[0]) if descriptors else None


def _bind(host: str, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


def _is_mine(peer: socket.socket) -> bool:
    """Whether the other end of a Unix socket is a process of this user."""
    _pid, user, _group = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return user == os.getuid()
