"""How busy are the GPUs of this replica, and how full is their memory, whoever uses them?

By NVIDIA's library; written from its documentation, not run on a GPU.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol


class Library(Protocol):
    """Of pynvml: what is called here."""

    def nvmlDeviceGetUtilizationRates(self, handle: Any) -> Any: ...

    def nvmlDeviceGetMemoryInfo(self, handle: Any) -> Any: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuUse:
    """Means over GPUs."""

    busy_share: float
    """Of the library's last sampling time in which some kernel ran."""
    memory_share: float
    """Of their memory that is taken."""


class GpuWatch:
    """The GPUs that this process may see. A GPU that stops answering is told of no more."""

    def __init__(self, library: Library | None, handles: Sequence[Any]) -> None:
        self._library, self._handles = library, list(handles)

    @classmethod
    def here(cls) -> "GpuWatch":
        """Watches nothing where there is no GPU or no library for it."""
        try:
            import pynvml

            pynvml.nvmlInit()
            return cls(pynvml, [_handle(pynvml, name) for name in _visible(pynvml)])
        except Exception:  # no library, no driver, a GPU that is no whole one: what it raises for that is its own
            return cls(None, ())

    @property
    def sees_any(self) -> bool:
        """Whether there is something to watch."""
        return bool(self._library is not None and self._handles)

    def use(self) -> GpuUse | None:
        """Now; None where there is nothing to watch."""
        if self._library is None or not self._handles:
            return None
        try:
            rates = [self._library.nvmlDeviceGetUtilizationRates(handle) for handle in self._handles]
            memories = [self._library.nvmlDeviceGetMemoryInfo(handle) for handle in self._handles]
        except Exception:  # a GPU that fell off the bus; scaling goes on without it
            self._handles = []
            return None
        return GpuUse(
            busy_share=sum(rate.gpu for rate in rates) / len(rates) / 100,
            memory_share=sum(memory.used / memory.total for memory in memories) / len(memories),
        )


def _visible(library: Any) -> list[str]:
    """By index or by name, as CUDA_VISIBLE_DEVICES has them: Ray sets it for a replica."""
    told = os.environ.get("CUDA_VISIBLE_DEVICES")
    if told is None:
        return [str(index) for index in range(library.nvmlDeviceGetCount())]
    return [name.strip() for name in told.split(",") if name.strip()]


def _handle(library: Any, name: str) -> Any:
    return library.nvmlDeviceGetHandleByIndex(int(name)) if name.isdigit() else library.nvmlDeviceGetHandleByUUID(name)
