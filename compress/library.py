"""How is llm-compressor run on a model and our text? The one place that knows its entry point.

Written against llm-compressor 0.12.0.1, whose own logger is kept quiet.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.data import DataLoader

from compress.layers import Report, stack
from compress.text import Blocks

PASSES = 2
"""Times that a layer runs on each block: to calibrate it, and for what the next one sees."""


def oneshot(model: Any, modifiers: list[Any], text: Blocks, report: Report) -> None:
    """Applies modifiers to the model in place, layer after layer on the text where they need it."""
    from llmcompressor import oneshot as run
    from loguru import logger

    # Read when it runs. Set before the import it would keep a level unknown that modifiers log with.
    os.environ.setdefault("LLM_COMPRESSOR_LOG_DISABLED", "true")
    for library in ("llmcompressor", "compressed_tensors"):
        logger.disable(library)
    rows = [{"input_ids": torch.tensor(row), "attention_mask": torch.ones(len(row)).long()} for row in text.rows]
    loader: Any = DataLoader(rows, batch_size=1)  # pyright: ignore[reportArgumentType]
    processor: Any = NoProcessor()
    with _counted(model, len(rows), report):
        run(model=model, recipe=modifiers, dataset=loader, num_calibration_samples=len(rows), processor=processor)


class NoProcessor:
    """What `oneshot` demands beside tokenized text, and never calls."""


@contextmanager
def _counted(model: Any, blocks: int, report: Report) -> Iterator[None]:
    """Tells by the layers' calls how far the library is."""
    layers = list(stack(model))
    calls = 0

    def count(*_: Any) -> None:
        nonlocal calls
        calls += 1
        report(min(1.0, calls / (PASSES * blocks * len(layers))))

    hooks = [layer.register_forward_hook(count) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
