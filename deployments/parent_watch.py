"""How does an engine process learn that its parent was killed, and end too?

vLLM loads this as a general plugin in the engine core and in each worker. Workers are the core's children and the core
is the replica's: kill -9 of a replica thus ends the whole chain. pidfd is used because a parent-death signal would
follow the thread that spawned the process, not the process.
"""

import multiprocessing
import os
import select
import signal
import threading


def watch_parent() -> None:
    """Starts the watch in a process that multiprocessing spawned; elsewhere does nothing."""
    parent = multiprocessing.parent_process()
    if parent is None or parent.pid is None:
        return
    try:
        descriptor = os.pidfd_open(parent.pid)
    except ProcessLookupError:
        _end()
        return
    if os.getppid() != parent.pid:
        _end()
    threading.Thread(target=_wait, args=(descriptor,), name="parent-watch", daemon=True).start()


def _wait(descriptor: int) -> None:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    while not poll.poll():
        pass
    _end()


def _end() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
