"""A batch as programs ask for it: the same as `nstgpu batch`, with callbacks."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..runs.settings import Settings, checked
from .kept import Kept
from .painting.run import paint
from .planning.contents import pictures_of
from .planning.names import TEMPLATE, Template
from .planning.plan import Plan, plan, product
from .report import Summary
from .tasks import OnProgress, Outcome, Stopped


class Batch:
    """Many pictures: every one of `contents` in every one of `styles`, below the folder `output`.

    contents: files, folders and patterns, as `nstgpu batch` takes them. name: of the pictures, by its template. force:
    paint again what is there already. settings: of every picture, as a recipe names them: size=1024, iterations=200,
    weights="vgg19", style_layers=["relu1_1=2"].

    `plan` says what there is to do before anything is painted. Raises SettingsError, ImageError, DeviceError and
    WeightsError, each one line, for what `nstgpu batch` would refuse.
    """

    def __init__(
        self,
        contents: Sequence[str | Path],
        styles: Sequence[str | Path],
        output: str | Path = "painted",
        *,
        name: str = TEMPLATE,
        force: bool = False,
        **settings: Any,
    ) -> None:
        told = {name: str(value) if isinstance(value, Path) or name == "iterations" else value
                for name, value in settings.items()}  # fmt: skip
        common = checked(told, Settings, "Batch")
        pictures = pictures_of([str(content) for content in contents], [*map(str, styles), str(output)])
        rows = product(pictures, [str(style) for style in styles], common)
        self._kept = Kept()
        self.plan: Plan = plan(rows, Path(output), Template(name), self._kept, force=force)

    def run(
        self,
        *,
        jobs: int | None = None,
        scheduler: str | None = None,
        retry: int = 0,
        on_outcome: Callable[[Outcome], object] | None = None,
        on_progress: OnProgress | None = None,
        stopped: Stopped = lambda: False,
    ) -> Summary:
        """Paints what is missing, and says what came of every picture; one that fails does not end the rest.

        on_outcome: told of each picture once it is known. on_progress: told of a task under way, and of the share of
        its work that is done; returning False ends the batch, as `stopped` does where it says so, and Ctrl-C. jobs,
        scheduler: worker processes, or a Dask cluster, instead of this process alone.
        """
        began, outcomes = time.monotonic(), dict(self.plan.known)
        where: dict[str, Any] = {"jobs": jobs, "scheduler": scheduler, "retry": retry}
        for outcome in paint(self.plan.missing, self._kept, on_progress=on_progress, stopped=stopped, **where):
            outcomes[outcome.task.number] = outcome
            if on_outcome is not None:
                on_outcome(outcome)
        return Summary(self.plan, [outcomes[number] for number in sorted(outcomes)], time.monotonic() - began)
