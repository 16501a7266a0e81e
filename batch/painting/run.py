"""Where a batch is painted: in this process, in several on this machine, or on a cluster."""

from collections.abc import Iterator, Sequence

from ..kept import Kept
from ..tasks import OnProgress, Outcome, Stopped, Task
from . import paint as here
from . import workers


def paint(
    tasks: Sequence[Task],
    kept: Kept,
    jobs: int | None = None,
    *,
    scheduler: str | None = None,
    workers_write: str | None = None,
    retry: int = 0,
    on_progress: OnProgress | None = None,
    stopped: Stopped = lambda: False,
) -> Iterator[Outcome]:
    """What came of each task, as it is known: see `paint.paint_all` and `workers.paint_in_processes`.

    jobs: processes; None is one for each of several GPUs that all tasks name, and else this process alone. scheduler,
    workers_write: of a Dask cluster, instead; see `dask.paint_on_cluster`.
    """
    if scheduler is not None:
        from .dask import paint_on_cluster

        return paint_on_cluster(
            tasks, scheduler, kept, workers_write=workers_write, retry=retry, on_progress=on_progress, stopped=stopped
        )
    asked = {task.options.device for task in tasks}
    devices = workers.devices_of(next(iter(asked))) if len(asked) == 1 else []
    jobs = jobs or max(1, len(devices))
    if jobs == 1 and not devices:
        return here.paint_all(tasks, kept, retry=retry, on_progress=on_progress, stopped=stopped)
    return workers.paint_in_processes(
        tasks, jobs, devices=devices, retry=retry, on_progress=on_progress, stopped=stopped
    )
