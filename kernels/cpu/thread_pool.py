"""A few threads that take work items from a list; NumPy releases the interpreter's lock, so they run side by side."""

import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from queue import SimpleQueue
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


class _Job:
    """What one worker does in a run. Locks and a queue, since futures take three times as long to hand over."""

    def __init__(self, work: Callable[[int], None], worker: int) -> None:
        self._work, self._worker = work, worker
        self._claim, self._ended = threading.Lock(), threading.Lock()
        self._ended.acquire()
        self.error: BaseException | None = None

    def begin(self) -> None:
        """Does the work, unless nobody waits for it any more."""
        if self._claim.acquire(blocking=False):
            try:
                self._work(self._worker)
            except BaseException as error:
                self.error = error
            finally:
                self._ended.release()

    def wait(self) -> None:
        """Returns when the work is done, at once where it has not been begun: then it is not going to be."""
        if not self._claim.acquire(blocking=False):
            self._ended.acquire()


_Jobs = SimpleQueue[_Job | None]


class Workers:
    """`count` workers; the calling thread is number 0, the others wait for jobs."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._jobs: _Jobs | None = None
        self._threads = 0
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
            others = [_Job(work, worker) for worker in range(1, min(self.count, len(items)))]
            if others:
                jobs = self._jobs_here(len(others))
                for job in others:
                    jobs.put(job)
            try:
                work(0)
            finally:
                for job in others:
                    job.wait()
        for job in others:
            if job.error is not None:
                raise job.error

    def _jobs_here(self, threads: int) -> _Jobs:
        """The queue of this process, with so many threads at it at least.

        A fork takes the object along, but none of its threads, and would wait for ever.
        """
        if self._jobs is None or self._process != os.getpid():
            self._jobs, self._threads, self._process = SimpleQueue(), 0, os.getpid()
        try:
            while self._threads < threads:
                threading.Thread(target=_serve, args=(self._jobs,), name="nstgpu", daemon=True).start()
                weakref.finalize(self, self._jobs.put, None)
                self._threads += 1
        except RuntimeError as error:  # the system's limit
            raise DeviceError(f"{self.count} threads can't be started ({error}); use fewer threads") from error
        return self._jobs


def _serve(jobs: _Jobs) -> None:
    while (job := jobs.get()) is not None:
        job.begin()
        del job  # or what it holds would stay until the next one
