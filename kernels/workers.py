"""A few threads that take work items from a list; NumPy releases the interpreter's lock, so they run side by side."""

import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from .blas import find_openblas, single_threaded

Item = TypeVar("Item")
MOST_WORKERS = 64


def default_count() -> int:
    """One worker per core this process may use; one in all where the BLAS can't be told to keep to one thread."""
    if find_openblas() is None:
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MOST_WORKERS)


class Workers:
    """`count` workers; the calling thread is number 0, the others wait in a pool."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool = ThreadPoolExecutor(count - 1, thread_name_prefix="nstgpu") if count > 1 else None

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
            if self._pool is None or len(items) < 2:
                work(0)
                return
            others = [self._pool.submit(work, worker) for worker in range(1, min(self.count, len(items)))]
            try:
                work(0)
            finally:
                for other in others:
                    other.result()
