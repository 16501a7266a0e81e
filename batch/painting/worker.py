"""What a worker process does: tasks come in on its standard input, outcomes go out on its standard output.

Messages are pickles, from and to the process that started it and nobody else. What anything else prints goes to
standard error. It ends when its input does, so that no worker outlives the one that started it.
"""

import logging
import os
import pickle
import queue
import signal
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any, BinaryIO

from ..kept import Kept
from ..planning.existing import difference
from ..tasks import Outcome, Task
from .paint import Line, thumbnail

TOLD_EVERY = 0.2
"""Seconds between two messages on how far a picture is, at least."""


class Messages:
    """To the process that started this one; may be used in any thread."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._lock = stream, threading.Lock()

    def send(self, *message: Any) -> None:
        with self._lock:
            pickle.dump(message, self._stream)
            self._stream.flush()


class Notes(logging.Handler):
    """What the library logs is said by the process that started this one."""

    def __init__(self, messages: Messages) -> None:
        super().__init__()
        self._messages = messages

    def emit(self, record: logging.LogRecord) -> None:
        self._messages.send("note", record.levelno, record.getMessage())


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one that started it, which says when to stop
    with os.fdopen(os.dup(0), "rb") as given, os.fdopen(os.dup(1), "wb") as told:
        os.dup2(2, 1)
        messages, tasks, stop = Messages(told), queue.SimpleQueue[Any](), threading.Event()
        logger = logging.getLogger("nstgpu")
        logger.setLevel(logging.INFO)
        logger.handlers[:], logger.propagate = [Notes(messages)], False
        warnings.simplefilter("ignore")
        threading.Thread(target=_receive, args=(given, tasks, stop), daemon=True).start()
        messages.send("ready")
        try:
            _work(messages, tasks, stop)
        except (BrokenPipeError, OSError):
            sys.exit(1)
        os._exit(0)  # the thread that receives may wait for ever


def _receive(given: BinaryIO, tasks: "queue.SimpleQueue[Any]", stop: threading.Event) -> None:
    while True:
        try:
            message = pickle.load(given)
        except (EOFError, OSError, pickle.UnpicklingError):
            message = None
        if message is None:  # it is to stop, or the one that started it is gone
            stop.set()
            tasks.put(None)
            return
        tasks.put(message)


def _work(messages: Messages, tasks: "queue.SimpleQueue[Any]", stop: threading.Event) -> None:
    told = 0.0

    def on_progress(task: Task, share: float) -> None:
        nonlocal told
        if time.monotonic() - told >= TOLD_EVERY:
            told = time.monotonic()
            messages.send("share", task.number, share)

    kept = Kept()
    line = Line(kept, on_progress, stop.is_set)
    while not line.ended:
        message = tasks.get() if line.idle else _next(tasks)
        while message is not None:
            task, attempt, again = message
            if again and (made := _made(task, kept)) is not None:
                messages.send("outcome", made)
            else:
                line.add(task, attempt)
            message = _next(tasks)
        if line.idle and stop.is_set():
            break
        for outcome in line.step():
            messages.send("outcome", outcome)
    line.close()


def _next(tasks: "queue.SimpleQueue[Any]") -> Any:
    try:
        return tasks.get_nowait()
    except queue.Empty:
        return None


def _made(task: Task, kept: Kept) -> Outcome | None:
    """The picture that a worker had written before it died, without a word of it."""
    from ...engine.imaging import files as images

    path: Path = task.output
    if not path.exists() or difference(task, kept.network(task.options), kept.checksum) is not None:
        return None
    pixels = images.read(path).pixels
    return Outcome(task, "painted", "", 1, shape=pixels.shape[:2], thumbnail=thumbnail(pixels))
