"""Who may use a transfer's devices and buffers just now: one thread at a time, and within a run nothing but the run."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import SettingsError


class Exclusive:
    """Held by whoever works; the thread that holds it may take it again."""

    def __init__(self) -> None:
        self._at_work = threading.RLock()
        self._running = False

    @contextmanager
    def work(self, *, within_a_run: bool = False) -> Iterator[None]:
        """Holds the devices and their buffers; SettingsError where another thread does, or a run that is under way."""
        if not self._at_work.acquire(blocking=False):
            raise SettingsError(
                "this StyleTransfer is at work in another thread; wait for it, or make one for every thread"
            )
        try:
            if self._running and not within_a_run:
                raise SettingsError(
                    "this StyleTransfer is in the middle of a run, whose buffers it needs; use another one in the "
                    "callback"
                )
            yield
        finally:
            self._at_work.release()

    @contextmanager
    def run(self) -> Iterator[None]:
        """The same for a run, in whose callbacks nothing else may begin."""
        with self.work():
            self._running = True
            try:
                yield
            finally:
                self._running = False
