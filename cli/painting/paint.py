"""One painting as the command line does it: from options to files, with progress on the way.

`nstgpu run` and `nstgpu resume` both end here. Nothing is computed; that is `StyleTransfer`'s.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

import typer

from ...engine.wording import counted
from ...runs.changes import Change, changes_of
from ...runs.checks import check_options
from ...runs.files import checksums
from ...runs.recipes import recipe_of
from ...runs.settings import Options, method_of, styles_of
from ...runs.steered import Stage, SteeredRun
from ..terminal.messages import notes, printable, say
from ..terminal.progress import shown
from ..terminal.stopping import asked_to_stop
from ..terminal.streams import complain, output_alone
from . import live, repeating, rescue, side_outputs
from .destinations import SIDES, STANDARD, check_files, default_name, folders, make_folders

if TYPE_CHECKING:
    from ...engine.optimizers.coarse_to_fine import Progress, RunState
    from ...engine.transfer import Result, StyleTransfer
    from ...weights import Weights

FRAMES = 60  # of an animation, about


def paint(
    options: Options,
    resume: "RunState | None" = None,
    *,
    more: str | None = None,
    network: "Weights | None" = None,
    dry_run: bool = False,
    live_frame: str | None = None,
) -> None:
    """Reads, paints and writes, or only says what would be done; errors are the library's.

    resume: the state to go on from, to `more` iterations than it was begun with if that is given. network: the weights,
    where they are opened already. live_frame: the file of `live`, for a run that another program watches. Nothing but
    the picture itself can cost the picture; raises typer.Exit where it or something else could not be written where it
    should be, and where a signal has ended the run.
    """
    from ...engine.imaging import files as images
    from ...engine.imaging.codecs import whole_file
    from ...engine.inputs import Opened
    from ...engine.optimizers import checkpoint
    from ...engine.reporting import recipe
    from ...engine.reporting.animation import Animation
    from ...runs.transfer import open_weights, taken, transfer_of
    from ...weights.official.store import BUNDLED

    styles = styles_of(options)
    check_options(options, styles)
    changes_of(options)
    unwritable = check_files(options, styles, resumed=resume is not None)
    if live_frame is not None:
        live.check(live_frame, options)
    for folder in () if dry_run else folders(options):
        whole_file.clean(folder)
    sums = checksums(options)
    with notes(options.quiet):
        network = open_weights(options) if network is None else network
    with notes(options.quiet):
        picture = images.read(options.content)
        opened = Opened(options.device, options.precision, options.threads)
        make = partial(transfer_of, content=picture, network=network, opened=opened)
        transfer = make(options)
    if options.output != STANDARD:  # PNG, which is of any size
        images.check_size(options.output, transfer.shape[:2])
    if dry_run:
        from .dry_run import show as show_plan

        show_plan(options, transfer, picture)
        return
    make_folders(options, resumed=resume is not None)
    if not options.quiet:
        if network.name == BUNDLED:
            say(
                f"note: {BUNDLED} is a small stand-in for VGG-19 up to {network.taps[-1]}; "
                "nstgpu weights fetch vgg19 gets the whole (80 MB)"
            )
        _introduce(network, transfer.device.name, transfer.shape, picture.pixels.shape)

    options = taken(options, transfer)
    run = SteeredRun(options, transfer, make, resume)
    if resume is not None and more is not None:
        options, resume = _extended(run, transfer, resume, more)
        run = SteeredRun(options, transfer, make, resume)
    done = 0 if resume is None else len(resume.history)
    with ExitStack() as stack:
        standard = stack.enter_context(output_alone()) if options.output == STANDARD else None
        watcher = None if live_frame is None else stack.enter_context(live.watched(live_frame))
        stopped_by = stack.enter_context(asked_to_stop())
        sides = side_outputs.Sides()
        unwritable.pop("checkpoint", None)  # which is tried again and again, and says so
        for name, reason in unwritable.items():
            sides.leave_out(f"{SIDES[name]} {getattr(options, name)}", reason)
        nothing: dict[str, Any] = dict.fromkeys(unwritable)
        beside = replace(options, **nothing)
        if beside.json_file is not None:
            sides.add(side_outputs.json_lines(beside.json_file, done, stack))
        if options.save_every is not None:
            sides.add(side_outputs.saver(transfer, options, stack))
        animation = None
        if beside.animation is not None:
            every = max(1, run.iterations // FRAMES)
            animation = stack.enter_context(Animation(beside.animation, every))
            if resume is not None and options.checkpoint is not None:
                animation.restore(checkpoint.read_frames(options.checkpoint))
            sides.add(side_outputs.animator(animation))
        if beside.report is not None:
            sides.add(side_outputs.reporter(options, styles, lambda: run.stage, picture))
        if options.checkpoint is not None:
            text = lru_cache(1)(lambda options: repeating.checkpoint_text(options, sums))
            seconds = options.checkpoint_seconds
            sides.add(
                side_outputs.checkpointer(options.checkpoint, lambda: text(run.options), seconds, animation, resume)
            )
        if watcher is not None:
            for side in watcher.sides():
                sides.add(side)
            watcher.begun(run.stage, done)
        show = None if options.quiet else stack.enter_context(shown(run.iterations))

        def on_iteration(progress: "Progress") -> None:
            if show is not None:
                show(progress)
            sides.report(progress)

        requests = None if watcher is None else watcher.requests
        result = run.run(on_iteration, stopped_by, requests, watcher or Noted(options.quiet))
        result = replace(result, recipe={**result.recipe, recipe.KEY: recipe_of(run.told, sums)})
        kept = replace(result, recipe={}) if options.no_recipe else result
        try:
            place, problem = rescue.written(
                Path(options.output if standard is None else default_name(options)),
                lambda path: kept.save(path, depth=options.depth, quality=options.quality),  # type: ignore[arg-type]
                None if standard is None else partial(_pipe, kept, standard, options.depth),  # type: ignore[arg-type]
            )
        finally:  # also where the picture can go nowhere: the checkpoint still has it
            sides.finish(result)
        if watcher is not None:
            watcher.done(result)
        stopping = stopped_by()
    if problem is not None:
        complain(f"nstgpu: {printable(f'{problem}; the picture is in {place}')}")
    elif not options.quiet:
        _conclude(run, result)
    if problem is not None or sides.failed:
        raise typer.Exit(1)
    if stopping is not None:
        raise typer.Exit(128 + stopping)


@dataclass(frozen=True)
class Noted:
    """Says in a line what changes while a run goes on."""

    quiet: bool

    def changed(self, stage: Stage, change: Change) -> None:
        del stage
        if not self.quiet:
            say(f"changed after {change}")

    def refused(self, values: Mapping[str, Any], why: str) -> None:
        """Nobody asks for anything here."""

    def paused(self, paused: bool, iteration: int) -> None:
        """As above."""


def _pipe(result: "Result", file: BinaryIO, depth: Literal[8, 16]) -> None:
    result.write(file, depth=depth)
    file.flush()


def _extended(run: SteeredRun, transfer: "StyleTransfer", state: "RunState", more: str) -> "tuple[Options, RunState]":
    """The options with more iterations, and the state as one of such a run; another run's is left as it is."""
    from ...engine.errors import SettingsError

    planned, now = transfer.method(**method_of(run.options)).scales, run.stage.method
    if state.scale >= len(planned):
        raise SettingsError(
            f"--iterations {more}: the run was given a scale more while it went on, and is there; that scale keeps its "
            f"{now.scales[state.scale].iterations} iterations"
        )
    decay = now.decay(now.scales[state.scale].iterations)
    options = repeating.with_more(run.options, more, state, decay, len(planned))
    if state.fingerprint == run.stage.fingerprint:
        state = replace(state, fingerprint=run.extended(options).fingerprint)
    return options, state


def _introduce(network: "Weights", device: str, shape: tuple[int, ...], original: tuple[int, ...]) -> None:
    resized = "" if shape[:2] == original[:2] else f" (from {original[1]}x{original[0]})"
    say(f"painting {shape[1]}x{shape[0]}{resized} with {network.name} on {device}")


def _conclude(run: SteeredRun, result: "Result") -> None:
    options, iterations, done = run.options, run.iterations, len(result.history)
    how = (
        f"stopped after {done} of {counted(iterations, 'iteration')}"
        if result.interrupted
        else counted(done, "iteration")
    )
    cost = f", cost {result.history[0].total:.4g} -> {result.history[-1].total:.4g}" if done else ""
    where = "the picture to standard output" if options.output == STANDARD else options.output
    say(f"wrote {where} ({how}{cost})")
    if late := run.planned and not result.interrupted:
        say(f"note: the run ended before {counted(len(run.planned), 'change')} of it")
    if done and not (late or options.changes) and result.history[-1].total > result.history[0].total:
        say(f"note: {_why_it_rose(options, result)}")


def _why_it_rose(options: Options, result: "Result") -> str:
    """What to do where the cost is higher at the end than at the start."""
    from ...engine.optimizers.registry import spec

    rose = f"the cost rose from {result.history[0].total:.4g} to {result.history[-1].total:.4g}"
    if options.learning_rate is None:
        return f"{rose}; more --iterations or a lower --learning-rate may help"
    rate = spec(options.optimizer).learning_rate
    own = "measured" if rate is None else f"{rate:g}"
    return f"{rose}: the learning rate {options.learning_rate:g} is too large; without --learning-rate it is {own}"
