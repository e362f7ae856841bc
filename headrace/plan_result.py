"""What does a plan consist of, once everything is computed?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from headrace.model_source import Described
from headrace.plan_answer import Answer
from headrace.plan_asked import Traffic
from headrace.plan_prices import Price
from headrace.plan_training import TrainingRow


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """All that is printed, written as JSON, or drawn."""

    asked: Described
    traffic: Traffic
    context_tokens: int
    answers: Sequence[Answer]
    """Forms within devices, in the order they were asked for."""
    prices_file: Path
    currency: str
    prices: Mapping[str, Price]
    """Of the devices asked for, as far as they have one."""
    training: Mapping[str, Sequence[TrainingRow]]
    """By device; empty where it was not asked."""
    training_words: str
    notes: Sequence[str]
    """What a reader must know."""
