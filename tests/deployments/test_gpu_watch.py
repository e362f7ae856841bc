"""Are GPUs' numbers read as NVIDIA's library gives them, and is a replica without GPUs left alone?"""

from types import SimpleNamespace

from deployments.gpu_watch import GpuUse, GpuWatch


class Library:
    """Two GPUs, by the signatures of pynvml."""

    def __init__(self) -> None:
        self.gone = False

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> SimpleNamespace:
        if self.gone:
            raise RuntimeError("GPU is lost")
        return SimpleNamespace(gpu=(40, 80)[handle], memory=99)

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> SimpleNamespace:
        return SimpleNamespace(total=80 << 30, used=(72 << 30, 76 << 30)[handle], free=0)


def test_a_replica_s_gpus_are_told_as_their_mean() -> None:
    use = GpuWatch(Library(), [0, 1]).use()
    assert use == GpuUse(busy_share=0.6, memory_share=0.925)


def test_a_gpu_that_is_lost_is_told_of_no_more() -> None:
    library = Library()
    watch = GpuWatch(library, [0, 1])
    library.gone = True
    assert watch.use() is None
    library.gone = False
    assert watch.use() is None


def test_without_gpus_nothing_is_told() -> None:
    assert GpuWatch(None, ()).use() is None
