"""A few threads that take work items from a list; NumPy releases the interpreter's lock, so they run side by side."""

import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from ..errors import DeviceError
from .openblas import find_openblas, single_threaded

Item = TypeVar("Item")
MOST_WORKERS = 64
"""Of those that nobody asked for by number."""
MOST_THREADS = 256
"""That may be asked for; OpenBLAS has room for no more than some hundred callers at a time, and dies beyond."""


def default_count() -> int:
    """One worker per core this process may use; one in all where the BLAS can't be told to keep to one thread."""
    if find_openblas() is None:
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MOST_WORKERS)


def check_threads(threads: int | None) -> None:
    """Raise DeviceError for a number of threads that can't be had; None, which takes all cores, can."""
    if threads is not None and threads < 1:
        raise DeviceError(f"threads is {threads}; at least 1 is needed")
    if threads is not None and threads > MOST_THREADS:
        raise DeviceError(
            f"threads is {threads}; {MOST_THREADS} at most are possible, and more than the "
            f"{default_count()} cores at hand gain nothing"
        )


class Workers:
    """`count` workers; the calling thread is number 0, the others wait in a pool."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool: ThreadPoolExecutor | None = None
        self._process = os.getpid()

    def run(self, task: Callable[[int, Item], None], items: Sequence[Item]) -> None:
        """Calls task(worker, item) once for every item, and returns when all are done.

        Which worker takes which item is left to chance, so a result must not depend on it.
        """
        pending = deque(items)  # whose popleft is atomic: there is no lock that Ctrl-C could leave held

        def work(worker: int) -> None:
            # What overflows ends as a cost that is not finite, which is said in words.
            with np.errstate(over="ignore", invalid="ignore"):
                while True:
                    try:
                        item = pending.popleft()
                    except IndexError:
                        return
                    task(worker, item)

        with single_threaded():
            others: list[Future[None]] = []
            try:
                if self.count > 1 and len(items) > 1:
                    pool = self._pool_here()
                    try:
                        for worker in range(1, min(self.count, len(items))):
                            others.append(pool.submit(work, worker))
                    except RuntimeError as error:  # the system's limit
                        pending.clear()
                        self._pool = None
                        raise DeviceError(
                            f"{self.count} threads can't be started ({error}); use fewer threads"
                        ) from error
                work(0)
            finally:
                for other in others:
                    other.result()

    def _pool_here(self) -> ThreadPoolExecutor:
        """The pool of this process: a fork takes the object along, but none of its threads, and would wait for ever."""
        if self._pool is None or self._process != os.getpid():
            self._pool = ThreadPoolExecutor(self.count - 1, thread_name_prefix="nstgpu")
            self._process = os.getpid()
        return self._pool
