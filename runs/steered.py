"""A run that is changed while it goes on, by what its options say beforehand or by what is asked of it meanwhile.

A change never reaches into an iteration: the run ends after a whole one, its state is made one of a run with other
settings, and that goes on. So a run that was changed by hand, one that repeats it from its recipe and one that is
resumed in the middle all take the same steps, to the same bytes.
"""

import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from .changes import (
    LAYERS,
    MEASURED,
    SIZE,
    STEPS,
    STOP,
    WEIGHTS,
    Change,
    applied,
    changes_of,
    check,
    check_room,
    fitting,
)
from .requests import MORE_SCALE, Requests
from .settings import Options, layers_of, method_of

if TYPE_CHECKING:
    from ..engine.costs.terms import Weighting
    from ..engine.optimizers.coarse_to_fine import Method, Progress, RunState
    from ..engine.optimizers.scales import Scale
    from ..engine.transfer import Result, StyleTransfer

PAUSED_SECONDS = 0.1
"""Between two looks, while paused, at whether a signal has come."""

Make = Callable[[Options], "StyleTransfer"]
"""Measures all anew for other options, best on devices that are opened already."""


@dataclass(frozen=True)
class Stage:
    """A run between two changes."""

    options: Options
    transfer: "StyleTransfer"
    method: "Method"
    anew: bool = False
    """Whether the pictures were measured anew for it."""
    earlier: "tuple[tuple[int, Weighting], ...]" = ()
    """After how many iterations, over all scales, those before it ended, and with what weights."""

    @property
    def fingerprint(self) -> str:
        return self.transfer.fingerprint(self.method)


@dataclass(frozen=True, eq=False)
class _Trial:
    """What to go back to, until the first iteration with a change is done."""

    before: Stage
    state: "RunState"
    options: Options
    change: Change
    live: bool
    """Whether it was asked for meanwhile."""


class Listener(Protocol):
    """Who is told what becomes of changes."""

    def changed(self, stage: Stage, change: Change) -> None:
        """An iteration with it is done, or none was left to do."""

    def refused(self, values: Mapping[str, Any], why: str) -> None:
        """The run goes on as it was; why: one line."""

    def paused(self, paused: bool, iteration: int) -> None:
        """There are no iterations from here on, or there are again."""


class SteeredRun:
    """One painting, from its options to its result, through all its changes.

    options: with nothing left open; their `changes` are made when their time comes. resume: the state to go on from.
    Raises SettingsError for changes that cannot be, or that come after the end.
    """

    def __init__(
        self,
        options: Options,
        transfer: "StyleTransfer",
        make: Make,
        resume: "RunState | None" = None,
    ) -> None:
        from ..engine.errors import SettingsError

        self._base = transfer
        self.options = options
        """As they were given, with all changes so far: what a checkpoint tells."""
        self.stage = Stage(options, transfer, transfer.method(**method_of(options)))
        self.stopped_at: int | None = None
        """After which iteration it was stopped on request, if it was."""
        self.planned = deque(changes_of(options))
        """The changes that are still to come."""
        self._transfer_of, self._state = make, resume
        self._last: Progress | None = None  # of the stretch before, whose state has not been asked for
        self._trial: _Trial | None = None
        self._requests = Requests()
        self._listener: Listener | None = None
        self._check_ends()
        behind = 0 if resume is None else len(resume.changed)
        if behind > len(self.planned):
            raise SettingsError(f"the state has been changed {behind} times, its options tell of {len(self.planned)}")
        for _ in range(behind):
            self.stage = self._stage_after(self.planned.popleft())

    @property
    def told(self) -> Options:
        """What a recipe tells: the options, with where it was stopped."""
        if self.stopped_at is None:
            return self.options
        made = self.options.changes[: len(self.options.changes) - len(self.planned)]
        return replace(self.options, changes=(*made, f"{self.stopped_at} {STOP}"))

    @property
    def iterations(self) -> int:
        """Of the whole run, as it is planned now."""
        return sum(scale.iterations for scale in self.stage.method.scales)

    def extended(self, options: Options) -> Stage:
        """The present stage as it is in a run of the same settings and changes, but with other iterations."""
        scales = self._base.method(**method_of(options)).scales
        for change in changes_of(options)[: len(self.options.changes) - len(self.planned)]:
            scales = _with_the_scale_of(change, scales)
        return replace(self.stage, method=replace(self.stage.method, scales=scales, average=options.average))

    def run(
        self,
        on_iteration: "Callable[[Progress], object]",
        signaled: Callable[[], object] = lambda: None,
        requests: Requests | None = None,
        listener: Listener | None = None,
    ) -> "Result":
        """Goes through it all, to the end or to where it is stopped.

        on_iteration: told of every iteration. signaled: what it returns, unless None, ends the run, as Ctrl-C does.
        requests: what is asked for meanwhile; listener: who is told what became of it.
        """
        from ..engine.optimizers.loop import held_back_interrupt

        self._requests, self._listener = requests or Requests(), listener
        with held_back_interrupt() as interrupt:

            def ended() -> bool:
                return interrupt.is_set() or signaled() is not None or self._requests.left

            while True:
                result = self._stretch(on_iteration, ended)
                if ended() or self._ends_here(result, ended):
                    return result

    # ---- one stretch after the other ----------------------------------------------------------------------------
    def _stretch(self, on_iteration: "Callable[[Progress], object]", ended: Callable[[], bool]) -> "Result":
        """Runs to the next planned change, to a request, or to the end; a change that proves impossible is undone."""
        from ..engine.errors import ImageError, NonFiniteCostError, SettingsError
        from ..kernels.errors import DeviceError

        while True:
            trial, self._last = self._trial, None

            def told(progress: "Progress") -> bool:
                self._last = progress
                self._confirm()
                on_iteration(progress)
                return not (ended() or self._requests.any)

            stage = self.stage
            try:
                result = stage.transfer.follow(
                    stage.method, init=stage.options.init, noise=stage.options.noise, on_iteration=told,
                    resume=self._state, until=self.planned[0].iteration if self.planned else None,
                )  # fmt: skip
            except (SettingsError, ImageError, NonFiniteCostError, DeviceError, MemoryError) as error:
                if trial is None or self._last is not None:
                    raise
                self._undo(trial, error)
                continue
            self._confirm()
            return result

    def _ends_here(self, result: "Result", ended: Callable[[], bool]) -> bool:
        """Whether the run ends with this result; else whatever was asked for has been done."""
        requests, done = self._requests, len(result.history)
        while requests.paused and result.interrupted:
            self._tell_paused(True, done)
            while requests.paused and not ended():
                requests.wait(PAUSED_SECONDS)
            self._tell_paused(False, done)
            if ended():
                return True
        if requests.stopped:
            self.stopped_at = done if result.interrupted else None
            return True
        if not (result.interrupted or self.planned or requests.any):
            return True
        if self._last is not None:
            self._state = self._last.state()
        changed = False
        while self.planned and self.planned[0].iteration <= done:
            change = self.planned.popleft()
            if not change.values:
                return True
            self._make(change, live=False)
            changed = True
        while not self._trial and (values := requests.next_change()) is not None:
            changed |= self._try(values, done)
        return not (changed or result.interrupted)

    # ---- changes ------------------------------------------------------------------------------------------------
    def _try(self, values: Mapping[str, Any], done: int) -> bool:
        """Makes a change that was asked for meanwhile; whether it could be made."""
        from ..engine.errors import ImageError, SettingsError
        from ..kernels.errors import DeviceError

        try:
            last = self.stage.method.scales[-1].long_side
            wanted = {SIZE: round(last * math.sqrt(2))} if values == MORE_SCALE else values
            change = Change(done, fitting(wanted, "the change"))
            check_room((*self.options.changes, str(change)))
            self._make(change, live=True)
        except (SettingsError, ImageError, DeviceError, MemoryError) as error:
            if self._listener is not None:
                self._listener.refused(values, _line(error))
            return False
        return True

    def _make(self, change: Change, *, live: bool) -> None:
        from ..engine.errors import SettingsError

        self._confirm()
        state = self._state
        assert state is not None, "a run has been changed before its first iteration"
        before, options = self.stage, self.options
        try:
            after = self._stage_after(change)
            self._state = _gone_on(state, before, after)
        except SettingsError as error:
            raise error if live else SettingsError(f"the change {str(change)!r}: {error}") from error
        self.stage, self._trial = after, _Trial(before, state, options, change, live)
        if live:
            at = len(options.changes) - len(self.planned)
            texts = (*options.changes[:at], str(change), *options.changes[at:])
            self.options = replace(options, changes=texts)

    def _stage_after(self, change: Change) -> Stage:
        """Raises SettingsError, ImageError, DeviceError or MemoryError; the stage before is as it was then."""
        stage, values = self.stage, change.values
        earlier = (*stage.earlier, (change.iteration, stage.transfer.weighting))
        options, method, transfer = applied(stage.options, values), stage.method, stage.transfer
        check(options, transfer.weights)
        if any(name in values for name in STEPS):
            method = replace(method, learning_rate=options.learning_rate)
        method = replace(method, scales=_with_the_scale_of(change, method.scales))
        if _is_measured_anew(stage, options, values):
            transfer.release()
            return Stage(options, self._transfer_of(options), method, True, earlier)
        if any(name in values for name in (*WEIGHTS, *LAYERS)):
            transfer = transfer.reweighted(
                content_layers=layers_of(options.content_layers, options.content_ws, "content"),
                style_layers=layers_of(options.style_layers, options.style_lambdas, "style"),
                content_weight=options.content_weight,
                style_weight=options.style_weight,
                tv_weight=options.tv_weight,
            )
        return Stage(options, transfer, method, False, earlier)

    def _confirm(self) -> None:
        """An iteration with the newest change is done, or none is left to be."""
        if self._trial is None:
            return
        change, self._trial = self._trial.change, None
        if self._listener is not None:
            self._listener.changed(self.stage, change)

    def _undo(self, trial: "_Trial", error: Exception) -> None:
        """Back to before a change with which no iteration can be done; a planned one raises SettingsError."""
        from ..engine.errors import SettingsError

        if not trial.live:
            raise SettingsError(f"the change {str(trial.change)!r}: {_line(error)}") from error
        self.stage.transfer.release()
        self.stage, self._state, self.options, self._trial = trial.before, trial.state, trial.options, None
        if self._listener is not None:
            self._listener.refused(trial.change.values, _line(error))

    def _tell_paused(self, paused: bool, done: int) -> None:
        if self._listener is not None:
            self._listener.paused(paused, done)

    def _check_ends(self) -> None:
        """Raises SettingsError for a change after the last iteration, or a scale that can't be."""
        from ..engine.errors import SettingsError

        scales = self.stage.method.scales
        for change in self.planned:
            if change.iteration > (most := sum(scale.iterations for scale in scales)):
                raise SettingsError(f"the change {str(change)!r} comes too late: the run has {most} iterations")
            scales = _with_the_scale_of(change, scales)


def _with_the_scale_of(change: Change, scales: "tuple[Scale, ...]") -> "tuple[Scale, ...]":
    """The scales, with one more where the change is for that; raises SettingsError for another size."""
    from ..engine.optimizers.scales import with_one_more

    return with_one_more(scales, change.values[SIZE]) if SIZE in change.values else scales


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _is_measured_anew(stage: Stage, options: Options, values: Mapping[str, Any]) -> bool:
    """Whether what was measured of the pictures is of no use after a change."""
    from ..engine import balance

    if any(name in values for name in MEASURED):
        return True
    if not any(name in values for name in LAYERS):
        return False
    transfer = stage.transfer
    content = balance.wanted(
        "content", layers_of(options.content_layers, options.content_ws, "content"), transfer.weights
    )
    style = balance.wanted("style", layers_of(options.style_layers, options.style_lambdas, "style"), transfer.weights)
    return (*content.given,) != (*transfer.content_layers,) or (*style.given,) != (*transfer.style_layers,)


def _gone_on(state: "RunState", before: Stage, after: Stage) -> "RunState":
    """The state of a run as it goes on after a change; raises SettingsError where it is too small for that."""
    import numpy as np

    from ..engine.errors import SettingsError

    start = None
    if after.anew:
        side = after.method.scales[state.scale].long_side
        first = after.transfer.plan(1, min_size=max(1, side - 1))[0].long_side
        if first > side and side < max(after.transfer.shape):
            raise SettingsError(f"{side} px is too small for these layers; change it from the scale of {first} px on")
        picture = state.average
        if before.options.colors != after.options.colors:
            picture = before.transfer.finished(picture)
        size = (state.image.shape[0], state.image.shape[1])
        start = after.transfer.beginning(after.transfer.initial_image(np.clip(picture, 0, 1), size), size)
    return state.changed_to(after.transfer, after.method, before=before.method, start=start)
