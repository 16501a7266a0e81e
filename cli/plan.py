"""`nstgpu plan`: what a picture of some size will take, before anything runs: memory, tiles, time."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..engine.optimizers import registry
from ..engine.optimizers.scales import ITERATIONS, Iterations
from ..runs.checks import check_tuning, named
from ..runs.settings import iterations_of, tuning_of
from .options import (
    Debug,
    DeviceName,
    Directions,
    MatchEvery,
    Precision,
    Preprocessing,
    StyleStatistics,
    StyleTurns,
    Threads,
    WeightsFile,
)
from .terminal.messages import notes, printable

if TYPE_CHECKING:
    from ..engine.analysis.plan import Forecast, Plan

FIRST, LAST = 512, 32768  # px, of the sizes that are listed: doubling, up to the first that does not fit
GIB = 2**30


@dataclass(frozen=True)
class Row:
    """One size."""

    whole: "Forecast"
    tiled: "Forecast"
    short: str
    """Of what it takes more than there is, "memory" or "disk"; empty if it fits."""
    seconds: float | None
    """Of an iteration; None where time says nothing."""
    run: float | None
    """Seconds of all iterations, the coarse scales' too."""


def plan(
    image: Annotated[
        Path | None, typer.Argument(metavar="[IMAGE]", help="The picture to paint; a square without one.")
    ] = None,
    size: Annotated[
        int | None, typer.Option(min=16, help="Long side in pixels that you want.", show_default="the picture's own")
    ] = None,
    memory: Annotated[
        float | None, typer.Option(metavar="GIB", help="Memory to keep to.", show_default="most of what is free")
    ] = None,
    tile: Annotated[str, typer.Option(metavar="auto|off|N", help="Tiles, as for nstgpu run.")] = "auto",
    iterations: Annotated[
        str, typer.Option(metavar="N|N..M", help="Steps at each scale, or from the first scale's to the last's.")
    ] = str(ITERATIONS),
    optimizer: Annotated[str, typer.Option(help=f"{registry.choices()}.")] = "adam",
    statistics: StyleStatistics = "gram",
    match_every: MatchEvery = None,
    style_turns: StyleTurns = None,
    directions: Directions = None,
    weights: WeightsFile = None,
    preprocessing: Preprocessing = None,
    device: DeviceName = "auto",
    precision: Precision = "auto",
    threads: Threads = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
    debug: Debug = False,
) -> None:
    """Show what each size takes: memory as a whole and in tiles, and time; and the largest that fits.

    Time is measured on a small image, so it takes a few seconds. Memory is that of a run beyond the program itself;
    on the CPU, what it is too short of is kept in files in the system's folder for them, or in TMPDIR.
    """
    del debug  # acted on where errors are reported
    from ..engine.analysis.plan import LARGEST, of_weights
    from ..engine.checks import check_division
    from ..engine.errors import SettingsError
    from ..engine.imaging import files as images
    from ..engine.memory.limits import available
    from ..engine.memory.spill import disk_space
    from ..engine.model import taps
    from ..engine.model.network import least_side
    from ..engine.tiling import geometry as tiles
    from ..engine.tiling.memory_plan import SHARE
    from ..kernels import open_device
    from ..weights import default_weights, load_weights

    with named("--tile"):
        setting = tiles.setting(tile)
        tiles.check(setting)
    steps = _steps(iterations)
    check_division(statistics, setting, 1)
    check_tuning(statistics, match_every, style_turns, directions)
    registry.check(optimizer, None)
    if memory is not None and not 0 < memory < float("inf"):
        raise SettingsError(f"--memory is {memory} GiB; it must be a finite number above zero")
    if size is not None and size > LARGEST:
        raise SettingsError(f"--size is {size}; at most {LARGEST} pixels can be planned for")
    shape = None
    if image is not None:
        with notes(quiet=True):  # what is said of the picture, `run` says
            shape = images.read(image).pixels.shape[:2]
    opened = open_device(device, precision, threads)
    network = load_weights(weights or default_weights(), preprocessing=preprocessing)
    planned = of_weights(
        opened,
        network,
        taps.classic_content(network.taps),
        taps.classic_style(network.taps),
        optimizer=optimizer,
        content=shape,
        statistics=statistics,
        tuning=tuning_of(match_every, style_turns, directions),
    )
    free = available(opened)
    limit = int(memory * GIB) if memory is not None else None if free is None else int(SHARE * free)

    def size_of(side: int) -> tuple[int, int]:
        return (side, side) if shape is None else images.output_size(shape[0], shape[1], side)

    wanted = size if size is not None or shape is None else max(shape)
    least, first = least_side(planned.network), FIRST
    if wanted is not None and min(size_of(wanted)) < least:
        (height, width), own = size_of(wanted), shape or (1, 1)
        raise SettingsError(
            f"{image or 'the picture'} is {width}x{height} px, too small for {planned.network.layers[-1].tap}, which "
            f"needs {least} px on the short side; take a size of {images.long_side(own[0], own[1], least)}"
        )
    while min(size_of(first)) < least:
        first *= 2
    disk = disk_space()
    row = _rows(planned, setting, limit, disk, size_of, steps)
    rows = _listed(row, first, wanted)
    largest = None
    if limit is not None:
        ways: dict[str, tiles.Setting] = {"whole": "off", "tiles": setting}
        largest = {name: planned.largest(limit, how, size_of, disk) for name, how in ways.items()}
    if as_json:
        facts = {
            "device": opened.name,
            "precision": opened.precision,
            "weights": network.name,
            "optimizer": optimizer,
            "memory": limit,
            "largest": largest,
            "sizes": [_facts(one) for one in rows.values()],
            "asked": None if wanted is None else _facts(rows[wanted]),
        }
        print(json.dumps(facts, indent=2))
        return
    _print(rows, wanted)
    where = f"{network.name} on {opened.name} ({opened.precision}), {optimizer}"
    _say(where + ("" if limit is None else f", {_gib(limit)} of memory" + (" to use" if memory is None else "")))
    if largest is not None:
        sides = {name: "none" if side is None else f"{side} px" for name, side in largest.items()}
        _say(f"largest that fits: {sides['whole']} as a whole, {sides['tiles']} with --tile {tile}")
    if wanted is not None:
        _say(_advice(rows[wanted], str(image or "CONTENT"), wanted, tile, statistics, limited=memory is not None))


def _steps(text: str) -> Iterations:
    """At each scale; raises SettingsError for a list, since the sizes have different numbers of scales."""
    from ..engine.errors import SettingsError
    from ..engine.optimizers.scales import at_each

    steps = iterations_of(text)
    if isinstance(steps, list):
        raise SettingsError(f"--iterations {text} is a list; sizes differ in their scales: give a number, or 100..50")
    if min(at_each(steps, count=2)) < 1:
        raise SettingsError(f"--iterations {text}: at least 1 is needed at every scale")
    return steps


def _rows(
    planned: "Plan",
    tile: Any,
    limit: int | None,
    disk: int | None,
    size_of: Callable[[int], tuple[int, int]],
    iterations: Iterations,
) -> Callable[[int], Row]:
    """Every size's row, by its long side."""
    from ..engine.model.network import least_side
    from ..engine.optimizers.scales import plan_scales

    pace, least = planned.pace(), least_side(planned.network)

    @cache
    def forecast(side: int) -> "Forecast":
        return planned.forecast(size_of(side), tile, limit)

    def row(side: int) -> Row:
        tiled = forecast(side)
        seconds = run = None
        if pace is not None:
            seconds = pace.iteration(tiled.cut.image)
            scales = plan_scales(
                side, iterations=iterations, problem=lambda side: "too small" if min(size_of(side)) < least else None
            )
            run = sum(scale.iterations * pace.iteration(forecast(scale.long_side).cut.image) for scale in scales)
        whole = planned.forecast(size_of(side), "off")
        short = "memory" if limit is not None and tiled.device > limit else ""
        if not short and disk is not None and tiled.files > disk:
            short = "disk"
        return Row(whole, tiled, short, seconds, run)

    return row


def _listed(row: Callable[[int], Row], side: int, wanted: int | None) -> dict[int, Row]:
    """Sizes doubling from `side` to the first that does not fit, and the one that is wanted."""
    rows = {}
    while side <= LAST:
        rows[side] = row(side)
        if rows[side].short:
            break
        side *= 2
    if wanted is not None and wanted not in rows:
        rows[wanted] = row(wanted)
    return dict(sorted(rows.items()))


def _facts(row: Row) -> dict[str, Any]:
    height, width = row.tiled.size
    tiling = row.tiled.cut.image
    return {
        "width": width,
        "height": height,
        "whole_bytes": row.whole.device,
        "tiles": tiling.count,
        "tile": [tiling.side[1], tiling.side[0]],
        "bytes": row.tiled.device,
        "files": row.tiled.files,
        "parts": {name: getattr(row.tiled, name) for name in ("filters", "images", "optimizer", "targets", "tiles")}
        | {"host": row.tiled.pictures},
        "fits": not row.short,
        "seconds_per_iteration": row.seconds,
        "seconds": row.run,
    }


# ---- what the user sees -----------------------------------------------------------------------------------------
def _print(rows: dict[int, Row], wanted: int | None) -> None:
    from rich.console import Console
    from rich.table import Table

    timed = any(row.seconds is not None for row in rows.values())
    filed = any(row.tiled.files for row in rows.values())
    table = Table(header_style="bold")
    titles = ["Size", "As a whole", "Tiles", "In tiles", *(["In files"] if filed else [])]
    for title in (*titles, *(("Iteration", "Run") if timed else ())):
        table.add_column(title, justify="right", no_wrap=True)
    for side, row in rows.items():
        height, width = row.tiled.size
        tiling = row.tiled.cut.image
        cells = [f"{width}x{height}", _gib(row.whole.device), "none", ""]
        if tiling.count > 1:
            cells[2] = f"{tiling.count} of {tiling.side[1]}x{tiling.side[0]}"
        if tiling.count > 1 or row.tiled.files:
            cells[3] = _gib(row.tiled.device)
        if row.short:
            least = f"{_gib(row.tiled.device)} at least"
            cells[2:] = "does not fit", least if row.short == "memory" else "disk too small"
        if filed:
            cells.append(_gib(row.tiled.files) if row.tiled.files else "")
        if not row.short and row.seconds is not None and row.run is not None:
            cells += _seconds(row.seconds), _seconds(row.run)
        table.add_row(*cells, style="bold" if side == wanted else "dim" if row.short else "")
    console = Console(highlight=False)
    if console.width < 100 and not console.is_terminal:
        console = Console(highlight=False, width=100)  # a file or a pipe has no width to keep to
    console.print(table)


def _advice(row: Row, image: str, side: int, tile: str, statistics: str, *, limited: bool) -> str:
    """The command; where memory was `limited` by hand, with the tile, since a run would go by what is free."""
    height, width = row.tiled.size
    if row.short == "disk":
        files = _gib(row.tiled.files)
        return f"{width}x{height} takes {files} of files, and the disk has less: set TMPDIR, or choose a smaller --size"
    if row.short:
        return f"{width}x{height} does not fit: choose a smaller --size" + (
            "" if tile == "auto" else ", or --tile auto"
        )
    if tile == "auto" and limited and row.tiled.cut.image.count > 1:
        tile = str(min(row.tiled.cut.image.side))
    options = f"--size {side}" + ("" if tile == "auto" else f" --tile {tile}")
    options += "" if statistics == "gram" else f" --style-statistics {statistics}"
    how = f"in {row.tiled.cut.image}" if row.tiled.cut.image.count > 1 else "as a whole"
    takes = [_gib(row.tiled.device), *([f"{_gib(row.tiled.files)} in files"] if row.tiled.files else [])]
    takes += [] if row.run is None else [f"about {_seconds(row.run)}"]
    return f"{width}x{height}: nstgpu run {image} STYLE {options}  ({how}, {', '.join(takes)})"


def _say(text: str) -> None:
    print(printable(text))


def _gib(nbytes: float) -> str:
    return f"{nbytes / GIB:.2f} GiB" if nbytes < 10 * GIB else f"{nbytes / GIB:.1f} GiB"


def _seconds(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1e3:.3g} ms"
    if seconds < 100:
        return f"{seconds:.3g} s"
    minutes = seconds / 60
    if minutes < 100:
        return f"{minutes:.0f} min"
    return f"{minutes / 60:.1f} h" if minutes < 2880 else f"{minutes / 1440:.1f} d"
