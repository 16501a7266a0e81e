"""`nstgpu profile`: one iteration, operation by operation, as a table or as JSON."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..runs.checks import check_tuning
from ..runs.settings import tuning_of
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
)
from .painting.destinations import STANDARD, refuse_existing, refuse_folder

if TYPE_CHECKING:
    from ..engine.analysis.profile import Profile

DEFAULT_SIZE = 512
EMULATED_SIZE = 48  # the emulator says nothing of time, and is slow


def profile(
    size: Annotated[
        int | None,
        typer.Option(
            min=16, help="Side of the image in pixels.", show_default=f"{DEFAULT_SIZE}; {EMULATED_SIZE} emulated"
        ),
    ] = None,
    device: DeviceName = "auto",
    precision: Precision = "auto",
    threads: Threads = None,
    weights: Annotated[
        str, typer.Option(help="vgg19, vgg16, a VGG weights file, or random:SEED for VGG-19's shapes.")
    ] = "random:0",
    preprocessing: Preprocessing = None,
    kernel: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only operations or kernels with this in their name.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=2, help="Iterations to take the median of.")] = 5,
    json_file: Annotated[
        str | None, typer.Option("--json", metavar="FILE", help="Write the numbers as JSON; - for standard output.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that is there already.")] = False,
    statistics: StyleStatistics = "gram",
    match_every: MatchEvery = None,
    style_turns: StyleTurns = None,
    directions: Directions = None,
    debug: Debug = False,
) -> None:
    """Time every operation of one iteration, and compare each with the reference.

    Time is compared with the roofline measured on this device, errors (in float64) with a budget of eps times the root
    of the number of terms. On the emulator, correctness only.
    """
    del debug  # acted on where errors are reported
    from ..engine.analysis.profile import profile as profile_iteration
    from ..engine.costs.statistics.registry import parse
    from ..engine.errors import SettingsError
    from ..engine.imaging.files import check_place, write_whole
    from ..kernels import open_device
    from ..weights import load_weights

    if json_file not in (None, STANDARD):
        refuse_folder(json_file, "--json")
        check_place(Path(json_file))
        if not force:
            refuse_existing(json_file, "--json")
    parse(statistics)
    check_tuning(statistics, match_every, style_turns, directions)
    tuning = tuning_of(match_every, style_turns, directions)
    opened = open_device(device, precision, threads)
    side = size or (DEFAULT_SIZE if opened.measurable else EMULATED_SIZE)
    network = load_weights(weights, preprocessing=preprocessing)
    result = profile_iteration(opened, network, (side, side), rounds=rounds, style_statistics=statistics, tuning=tuning)
    if kernel:
        rows = [row for row in result.rows if any(kernel in name for name in (row.operation, *row.kernels))]
        if not rows:
            known = ", ".join(dict.fromkeys(name for row in result.rows for name in (row.operation, *row.kernels)))
            raise SettingsError(f"no operation or kernel has {kernel!r} in its name; there are {known}")
        result.rows[:] = rows
    if json_file is not None:
        text = json.dumps(asdict(result), indent=1)
        if json_file == STANDARD:
            print(text)
            return
        write_whole(Path(json_file), f"{text}\n".encode())
    _print(result)


def _print(result: "Profile") -> None:
    from rich.console import Console
    from rich.table import Table

    timed = result.seconds is not None
    table = Table(header_style="bold", row_styles=("", "dim"))
    table.add_column("Operation", no_wrap=True)
    table.add_column("Shape", no_wrap=True)
    if timed:
        for title in ("Time", "Spread", "Rate", "Roofline"):
            table.add_column(title, justify="right", no_wrap=True)
    table.add_column("Error", justify="right", no_wrap=True)
    for row in result.rows:
        cells = [row.operation, row.shape]
        if row.seconds is not None and row.spread is not None and row.roofline is not None:
            rate = (
                f"{row.flops / row.seconds / 1e12:.3g} TFLOP/s"
                if row.flops
                else f"{row.nbytes / row.seconds / 1e9:.3g} GB/s"
            )
            cells += [_milliseconds(row.seconds), f"{row.spread:.0%}", rate, f"{row.roofline:.0%}"]
        table.add_row(*cells, f"{row.error:.0%}")
    console = Console(highlight=False)
    if console.width < 110 and not console.is_terminal:
        console = Console(highlight=False, width=110)  # a file or a pipe has no width to keep to
    console.print(table)
    height, width = result.size
    small = "x".join(str(side) for side in reversed(result.checked_size))
    text = f"{width}x{height} on {result.device} ({result.precision}); errors at {small}, as a share of their budget"
    if result.seconds is not None and result.peak_flops and result.peak_bandwidth:
        flops = sum(row.flops for row in result.rows)
        text += f"\none iteration {_milliseconds(result.seconds)}, {flops / result.seconds / 1e12:.3g} TFLOP/s"
        text += f"; peaks {result.peak_flops / 1e12:.3g} TFLOP/s and {result.peak_bandwidth / 1e9:.3g} GB/s"
    console.print(text)


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
