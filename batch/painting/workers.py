"""The pictures of a batch in several processes: on the CPU with the threads shared out, and on GPUs one for each.

A process that dies is replaced, and its pictures are painted again; what it had written whole is found and kept. A
picture over which several die is given up.
"""

import logging
import os
import pickle
import queue
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from ..tasks import OnProgress, Outcome, Stopped, Task
from .paint import AHEAD

MOST_DEATHS = 3
"""Of processes over one picture, until it is given up; and of processes before they have said a word."""
PATIENCE = 30.0
"""Seconds that a worker has to write what it has painted, once it is told to stop."""
START = "import sys; sys.path[:] = {path!r}; from {package} import main; main()"


@dataclass(eq=False)
class Worker:
    """One process, and what it was given to do."""

    process: "subprocess.Popen[bytes]"
    device: str | None
    """That its pictures are painted on, where each has one of its own."""
    ready: bool = False
    at: int | None = None
    """The number of the task that it is painting, as far as it has said."""
    tasks: dict[int, tuple[Task, int]] = field(default_factory=dict)
    """By number, as they were given, with the attempt."""

    def send(self, message: Any) -> None:
        """Lost with a process that has died, as is told by its end."""
        assert self.process.stdin is not None
        with suppress(OSError, ValueError):  # ValueError: closed already
            pickle.dump(message, self.process.stdin)
            self.process.stdin.flush()


def devices_of(device: str) -> list[str]:
    """ "cuda:0,1" and "cuda:all" one by one, each of which has a process of its own; any other device is shared."""
    from ...kernels.open import open_devices

    kind, _, listed = device.partition(":")
    if kind != "cuda" or not ("," in listed or listed == "all"):
        return []
    if listed == "all":
        return [f"cuda:{number}" for number in range(len(open_devices(device)))]
    return [f"cuda:{number}" for number in listed.split(",")]


def threads_each(task: Task, jobs: int) -> Task:
    """The task with its share of the cores, where nobody has said how many threads it may have."""
    from ...kernels.cpu.thread_pool import default_count

    if task.options.threads is not None or task.options.device not in ("auto", "cpu"):
        return task
    return replace(task, options=replace(task.options, threads=max(1, default_count() // jobs)))


def paint_in_processes(
    tasks: Sequence[Task],
    jobs: int,
    *,
    devices: Sequence[str] = (),
    retry: int = 0,
    on_progress: OnProgress | None = None,
    stopped: Stopped = lambda: False,
) -> Iterator[Outcome]:
    """As `paint.paint_all`, in `jobs` processes; devices: each process paints on one of them, in turn.

    Raises RuntimeError where no process comes up.
    """
    crew = Crew(tasks, jobs, devices, retry)
    try:
        yield from crew.outcomes(on_progress, stopped)
    finally:
        crew.end()


class Crew:
    """The workers, and the tasks that none of them has yet."""

    def __init__(self, tasks: Sequence[Task], jobs: int, devices: Sequence[str], retry: int) -> None:
        self._given = {task.number: task for task in tasks}
        self._pending = deque((threads_each(task, jobs), 1, False) for task in tasks)
        self._jobs, self._devices, self._retry = min(jobs, len(tasks)), tuple(devices), retry
        self._deaths: dict[int, int] = {}
        self._failed_starts = 0
        self._heard: queue.SimpleQueue[tuple[Worker, Any]] = queue.SimpleQueue()
        self._workers: list[Worker] = []

    def outcomes(self, on_progress: OnProgress | None, stopped: Stopped) -> Iterator[Outcome]:
        """Each as it is known. Stopped, workers write what they have painted, and no more."""
        stopping, until = False, 0.0
        for number in range(self._jobs):
            self._start(self._devices[number % len(self._devices)] if self._devices else None)
        while self._workers and (self._pending or any(worker.tasks for worker in self._workers)):
            try:
                if (stopped() or stopping) and not until:
                    stopping, until = True, time.monotonic() + PATIENCE
                    self._stop()
                if until and time.monotonic() > until:
                    return
                if not stopping:
                    self._hand_out()
                for worker, message in self._messages():
                    if message is None:
                        yield from self._died(worker, stopping)
                    elif message[0] == "outcome":
                        yield from self._told(worker, message[1])
                    elif message[0] == "share":
                        worker.at = message[1]
                        if on_progress is not None and worker.at in worker.tasks:
                            stopping |= on_progress(self._given[worker.at], message[2]) is False
                    elif message[0] == "note":
                        logging.getLogger("nstgpu").log(message[1], "%s", message[2])
                    elif message[0] == "ready":
                        worker.ready = True
            except KeyboardInterrupt:
                if stopping:
                    raise
                stopping = True

    def end(self) -> None:
        """No process is left; one that does not end by itself is killed."""
        self._stop()
        for worker in self._workers:
            try:
                worker.process.wait(PATIENCE if not worker.tasks else 1)
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()

    # ---- what happens -------------------------------------------------------------------------------------------
    def _messages(self) -> Iterator[tuple[Worker, Any]]:
        """What is heard within a moment; None of a worker that is gone."""
        try:
            yield self._heard.get(timeout=0.2)
            while True:
                yield self._heard.get_nowait()
        except queue.Empty:
            return

    def _hand_out(self) -> None:
        """Each worker has a task, and the next one as well while there are more than workers."""
        for worker in self._workers:
            most = AHEAD if len(self._pending) > self._jobs else 1
            while self._pending and len(worker.tasks) < most:
                task, attempt, again = self._pending.popleft()
                if worker.device is not None:
                    task = replace(task, options=replace(task.options, device=worker.device))
                worker.tasks[task.number] = task, attempt
                worker.send((task, attempt, again))

    def _told(self, worker: Worker, outcome: Outcome) -> Iterator[Outcome]:
        number = outcome.task.number
        task, _ = worker.tasks.pop(number)
        if outcome.state == "failed" and outcome.attempts <= self._retry:
            self._pending.append((task, outcome.attempts + 1, False))
        else:
            yield replace(outcome, task=self._given[number])

    def _died(self, worker: Worker, stopping: bool) -> Iterator[Outcome]:
        """Its tasks go to others, and a new one takes its place."""
        code = worker.process.wait()
        self._workers.remove(worker)
        if stopping:
            return
        self._clean(worker)
        at = worker.at if worker.at in worker.tasks else next(iter(worker.tasks), None)
        for number, (task, attempt) in reversed(worker.tasks.items()):
            if number == at and worker.ready:  # the others it had not begun
                self._deaths[number] = self._deaths.get(number, 0) + 1
            if self._deaths.get(number, 0) >= MOST_DEATHS:
                reason = f"{MOST_DEATHS} processes died over it ({_how(code)}); where memory is short take fewer --jobs"
                yield Outcome(self._given[number], "failed", reason, attempt)
            else:
                self._pending.appendleft((task, attempt, True))
        self._failed_starts = 0 if worker.ready else self._failed_starts + 1
        if self._failed_starts >= MOST_DEATHS:
            raise RuntimeError(f"worker processes end as soon as they begin ({_how(code)}); try without --jobs")
        if self._pending:
            self._start(worker.device)

    def _clean(self, worker: Worker) -> None:
        """Removes what it has left half-written."""
        from ...engine.imaging.codecs import whole_file

        for folder in {task.output.parent for task, _ in worker.tasks.values()}:
            whole_file.clean(folder)

    def _start(self, device: str | None) -> None:
        package = f"{__package__}.worker"
        path = [os.path.abspath(entry) for entry in sys.path]
        command = [sys.executable, "-c", START.format(path=path, package=package)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        worker = Worker(process, device)
        self._workers.append(worker)
        threading.Thread(target=self._listen, args=(worker,), daemon=True).start()

    def _listen(self, worker: Worker) -> None:
        stream = worker.process.stdout
        assert stream is not None
        with stream:
            while True:
                try:
                    self._heard.put((worker, pickle.load(stream)))
                except (EOFError, OSError, pickle.UnpicklingError):  # cut off in the middle of a word, it may be
                    break
        self._heard.put((worker, None))

    def _stop(self) -> None:
        for worker in self._workers:
            worker.send(None)
            if worker.process.stdin is not None:
                with suppress(OSError):
                    worker.process.stdin.close()


def _how(code: int) -> str:
    return f"killed by signal {-code}" if code < 0 else f"exit code {code}"
