"""Signals that end a program: at once, or within a long run at its next safe point."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

#: Ctrl-C, what a cluster sends before it kills, and the end of a terminal.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(KeyboardInterrupt):
    """The end of a program that a signal asked for; like Ctrl-C it is no error, and passes what catches errors."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class _Request:
    """The signal that asked this process to end, if one did."""

    def __init__(self) -> None:
        self.number: int | None = None
        #: Number of blocks that wait for a safe point.
        self.waiting = 0
        self.process = os.getpid()

    def handle(self, number: int, _: FrameType | None) -> None:
        if os.getpid() != self.process:  # in a worker that was forked, which ends when this process does
            return
        if self.number is not None:
            if number == signal.SIGINT:
                os._exit(128 + number)  # whoever asks twice does not want to wait for anything
            return
        self.number = number
        if not self.waiting:
            raise Stopped(number)
        os.write(2, b"\nstopping at the next safe point; Ctrl-C ends it at once\n")


_request = _Request()


@contextmanager
def signals_as_stops() -> Iterator[None]:
    """Let :data:`SIGNALS` raise :class:`Stopped` in the block, or be noted where it waits for a safe point.

    Signals that are ignored, such as SIGHUP under ``nohup``, stay so. A second SIGINT ends the process at once.
    """
    global _request
    if threading.current_thread() is not threading.main_thread():  # where handlers cannot be set
        yield
        return
    before, _request = _request, _Request()
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in handlers.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, _request.handle)
    try:
        yield
    except RuntimeError:
        # What was under way was torn down by the same signal: another process of the run, or a worker.
        check_stop()
        raise
    finally:
        for number, handler in handlers.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        _request = before


@contextmanager
def stop_at_safe_points() -> Iterator[None]:
    """Let signals wait in the block until :func:`check_stop` is called, or the block ends."""
    request = _request
    request.waiting += 1
    try:
        yield
    finally:
        request.waiting -= 1
    if not request.waiting:
        check_stop()


def stop_requested() -> bool:
    """Tell whether a signal has asked this process to end."""
    return _request.number is not None


def check_stop() -> None:
    """Be a safe point.

    Raises:
        Stopped: a signal has asked this process to end.
    """
    if _request.number is not None:
        raise Stopped(_request.number)
