"""`nstgpu batch`: many pictures; `nstgpu.batch` makes them, with the options that `nstgpu run` has for one."""

# ruff: noqa: ARG001  (the options are read from typer's context, which knows what was given and what is a default)

import inspect
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...batch.planning.names import TEMPLATE
from ...runs.settings import PRESETS, Settings
from ..options import Debug, Quiet, Yes
from ..run import run, was_given
from ..terminal.messages import say
from ..terminal.stopping import asked_to_stop
from ..terminal.streams import complain

if TYPE_CHECKING:
    from ...batch.kept import Kept
    from ...batch.planning.plan import Plan
    from ...batch.report import Summary

ALL, NONE, SOME = 0, 1, 3
"""Exit codes: whether all pictures are there in the end, none, or some. 2 is bad input, as everywhere."""
OF_RUN = ({field.name for field in fields(Settings)} | {*PRESETS, "relative_paths"}) - {"content", "styles"}
"""Options that are those of `nstgpu run`, for every picture."""


def _with_options_of_run(function: Callable[..., None]) -> Callable[..., None]:
    """The function as typer is to read it: with run's options before its own last ones."""
    own = inspect.signature(function)
    shared = [option for name, option in inspect.signature(run).parameters.items() if name in OF_RUN]
    parameters = [parameter for parameter in own.parameters.values() if parameter.kind is not parameter.VAR_KEYWORD]
    function.__signature__ = own.replace(parameters=[*parameters, *shared])  # type: ignore[attr-defined]
    return function


@_with_options_of_run
def batch(
    context: typer.Context,
    contents: Annotated[
        list[str] | None,
        typer.Argument(metavar="CONTENTS...", help="Pictures, folders and patterns.", show_default=False),
    ] = None,
    styles: Annotated[
        list[str] | None,
        typer.Option("--style", metavar="FILE", help="Every content is painted in each style; may be repeated."),
    ] = None,
    manifest: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Instead of contents: a .csv or .toml whose rows are runs, with options as columns."
        ),
    ] = None,
    output: Annotated[
        str, typer.Option("-o", "--output", metavar="FOLDER", help="Where the pictures go; made if missing.")
    ] = "painted",
    name: Annotated[
        str,
        typer.Option(metavar="TEMPLATE", help="Of their names: {content} {style} {size} {seed} {number} {folder}."),
    ] = TEMPLATE,
    retry: Annotated[int, typer.Option(min=0, metavar="N", help="Try what fails so often again, at the end.")] = 0,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Processes that paint side by side, with the threads shared out.",
            show_default="1, or one for each GPU of --device cuda:all",
        ),
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Paint on a Dask cluster, as in tcp://host:8786 (nstgpu[dask])."),
    ] = None,
    workers_write: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER|URL", help="With --scheduler: where workers write, by fsspec, instead of sending back."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Paint again, and overwrite, what is there already.")] = False,
    no_report: Annotated[
        bool, typer.Option("--no-report", help="Without report.html and report.json beside the pictures.")
    ] = False,
    yes: Yes = False,
    quiet: Quiet = False,
    debug: Debug = False,
    **options_of_run: Any,
) -> None:
    """Paint many pictures: every one of CONTENTS in every style, or the rows of a manifest.

    What is there already, painted with the same recipe, is skipped; a picture that fails does not end the rest. Exit
    code 0: all pictures are there; 3: some; 1: none; 2: bad input.
    """
    from ...batch import report
    from ...batch.kept import Kept
    from ...batch.planning.names import Template
    from ...batch.planning.plan import plan

    _check_cluster(scheduler, workers_write, jobs, context.params["relative_paths"])
    template, kept = Template(name), Kept()
    rows = _rows(contents or [], styles or [], manifest, output, _common(context), yes=yes)
    planned = plan(rows, Path(output), template, kept, force=force, relative_paths=context.params["relative_paths"])
    _refuse_nothing(planned)
    if not no_report:
        report.check_destinations(planned.folder, force=force)
    where = {"jobs": jobs, "scheduler": scheduler, "workers_write": workers_write, "retry": retry}
    summary, stopping = _painted(planned, kept, quiet=quiet, **where)
    if not no_report:
        try:
            report.write(summary)
        except OSError as error:
            complain(f"nstgpu: {error}; the pictures are not touched by it")
    _conclude(summary, quiet=quiet)
    if stopping is not None:
        raise typer.Exit(128 + stopping)
    raise typer.Exit(_code(summary))


def _check_cluster(scheduler: str | None, workers_write: str | None, jobs: int | None, relative_paths: bool) -> None:
    from ...engine.errors import SettingsError

    if workers_write is not None and scheduler is None:
        raise SettingsError("--workers-write is for the workers of a --scheduler; give both")
    if scheduler is not None and jobs is not None:
        raise SettingsError("--scheduler and --jobs are both given; choose one of them")
    if scheduler is not None and relative_paths:
        raise SettingsError("--relative-paths mean nothing on other machines; leave them out with --scheduler")


def _common(context: typer.Context) -> dict[str, Any]:
    """The settings that were given for every picture."""
    from ...engine.errors import SettingsError

    given = {name: value for name, value in context.params.items() if name in OF_RUN and was_given(context, name)}
    given.pop("relative_paths", None)
    presets = [name for name in PRESETS if given.pop(name, False)]
    if len(presets) > 1:
        raise SettingsError("--quick and --best are both given; choose one of them")
    for preset in presets:
        given = PRESETS[preset] | given
    return {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}


def _rows(
    contents: list[str], styles: list[str], manifest: str | None, output: str, common: dict[str, Any], *, yes: bool
) -> list[dict[str, Any]]:
    from ...batch.planning.contents import pictures_of
    from ...batch.planning.plan import product
    from ...engine.errors import SettingsError
    from ...runs.settings import split_weight

    if manifest is not None:
        if contents:
            raise SettingsError("contents and --manifest are both given; choose one of them")
        return _rows_of_manifest(Path(manifest), styles, common, yes=yes)
    if not contents:
        raise SettingsError("no content was given; name pictures or folders, as in nstgpu batch photos/ --style a.jpg")
    if not styles:
        raise SettingsError("no style was given; give one or more with --style")
    return product(pictures_of(contents, [*(split_weight(style)[0] for style in styles), output]), styles, common)


def _rows_of_manifest(file: Path, styles: list[str], common: dict[str, Any], *, yes: bool) -> list[dict[str, Any]]:
    from ...batch.planning import manifest
    from ...engine.errors import SettingsError

    rows = manifest.read(file)
    outside = manifest.outside(rows, file)
    if outside and not yes:
        more = f" and {len(outside) - 1} more" if len(outside) > 1 else ""
        raise SettingsError(
            f"{file} names {outside[0]}{more}, outside of its own and the current folder; add --yes to read that"
        )
    settings = []
    for row in rows:
        values = common | dict(row.values)
        if "content" not in values:
            raise SettingsError(f"{row.title} names no content; give it in the column content")
        if not values.get("styles") and not styles:
            raise SettingsError(f"{row.title} names no style; give it in the column style, or one with --style")
        settings += [values] if values.get("styles") else [{**values, "styles": (style,)} for style in styles]
    return settings


def _refuse_nothing(planned: "Plan") -> None:
    """Raises ImageError where nothing is there to be painted from."""
    from ...engine.imaging.files import ImageError

    if len(planned.known) == len(planned.tasks) and all(known.state == "failed" for known in planned.known.values()):
        raise ImageError(planned.known[planned.tasks[0].number].reason)


def _painted(planned: "Plan", kept: "Kept", *, quiet: bool, **where: Any) -> "tuple[Summary, int | None]":
    from ...batch.painting.run import paint
    from ...batch.report import Summary
    from ...batch.tasks import Task
    from ...engine.imaging.codecs import whole_file
    from .watch import Watch, shown

    began, outcomes = time.monotonic(), dict(planned.known)
    for outcome in planned.known.values():
        if outcome.state == "failed":
            complain(f"{outcome.task.output}: {outcome.reason}")
    for folder in {task.output.parent for task in planned.missing}:
        whole_file.clean(folder)
    watch = Watch(planned.missing)
    with asked_to_stop() as stopped_by, shown(watch, quiet) as show:

        def on_progress(task: Task, share: float) -> None:
            watch.saw(task, share)
            show(task.output.name)

        def stopped() -> bool:
            return stopped_by() is not None

        for outcome in paint(planned.missing, kept, on_progress=on_progress, stopped=stopped, **where):
            outcomes[outcome.task.number] = outcome
            watch.ended(outcome)
            if outcome.state == "failed":
                say(f"{outcome.task.output}: {outcome.reason}")
            show(outcome.task.output.name)
        stopping = stopped_by()
    ordered = [outcomes[number] for number in sorted(outcomes)]
    return Summary(planned, ordered, time.monotonic() - began), stopping


def _conclude(summary: "Summary", *, quiet: bool) -> None:
    from .watch import table

    if quiet:
        return
    for line in table(summary):
        print(line)
    left = "; the same command goes on with what is missing" if summary.left else ""
    say(f"{summary}, in {summary.plan.folder}{left}")


def _code(summary: "Summary") -> int:
    if summary.complete:
        return ALL
    return SOME if summary.count("painted") + summary.count("skipped") else NONE
