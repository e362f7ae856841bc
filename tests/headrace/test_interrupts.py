"""A signal that asks a command to end does so as Ctrl-C does, and means what it meant before once the block is over."""

import os
import signal
from collections.abc import Iterator

import pytest

from headrace.interrupts import ENDING, signals_interrupt


@pytest.fixture(autouse=True)
def _as_in_a_terminal() -> Iterator[None]:
    """Signals mean what they mean where nobody changed them, and after a test what they meant before it."""
    handlers = {number: signal.getsignal(number) for number in ENDING}
    for number in ENDING:
        signal.signal(number, signal.default_int_handler if number is signal.SIGINT else signal.SIG_DFL)
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", ENDING)
def test_each_of_them_interrupts(number: signal.Signals) -> None:
    with pytest.raises(KeyboardInterrupt), signals_interrupt():
        os.kill(os.getpid(), number)


def test_what_is_ignored_by_nohup_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with signals_interrupt():
        os.kill(os.getpid(), signal.SIGHUP)


def test_after_a_block_that_ended_while_it_ignored_them_they_mean_what_they_meant() -> None:
    with signals_interrupt():
        outer = [signal.getsignal(number) for number in ENDING]
        with signals_interrupt():
            for number in ENDING:
                signal.signal(number, signal.SIG_IGN)
        assert [signal.getsignal(number) for number in ENDING] == outer
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
