"""SIGTERM and SIGHUP end a run as Ctrl-C does: after the iteration under way, with picture and checkpoint written.

Ctrl-C itself is the library's. What is asked a second time ends at once.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)]


@contextmanager
def asked_to_stop() -> Iterator[Callable[[], int | None]]:
    """A function that says which signal has asked the run to end, if any has.

    A signal that somebody else handles, or that is ignored (SIGHUP under nohup), is left alone.
    """
    asked: list[int] = []

    def hold_back(number: int, _: FrameType | None) -> None:
        if asked:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        asked.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    ours = [number for number in _SIGNALS if signal.getsignal(number) == signal.SIG_DFL]
    for number in ours:
        signal.signal(number, hold_back)
    try:
        yield lambda: asked[0] if asked else None
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)
