"""`nstgpu run`: the options, as typer reads them; `painting` acts on `runs.settings.Options`."""

# ruff: noqa: ARG001  (the options are read from typer's context, which knows what was given and what is a default)

import sys
from typing import Annotated

import typer

from ..engine.optimizers import registry
from ..runs.settings import CHECKPOINT_SECONDS, DEFAULT_SIZE, PRESETS, Options, described
from .options import (
    COST,
    DEVICE_HELP,
    PRECISION_HELP,
    PREPROCESSING_DEFAULT,
    PREPROCESSING_HELP,
    STATISTICS_HELP,
    THREADS_HELP,
    VERSION,
    WEIGHTS_DEFAULT,
    WEIGHTS_HELP,
    Changes,
    Debug,
    Directions,
    Live,
    LiveLines,
    MatchEvery,
    Quiet,
    StyleTurns,
    Yes,
)
from .painting.given import options_of
from .painting.paint import paint

ACTED_ON_HERE = ("recipe", "yes", "debug", "version", "dry_run", "live", "live_lines")
"""Or where errors are reported; the others are a run's options."""
PICTURES, SCALES, METHOD, OUTPUT, MACHINE = "Pictures", "Scales", "Method", "Output", "Machine"


def run(
    context: typer.Context,
    content: Annotated[
        str | None, typer.Argument(metavar="CONTENT", help="The picture to paint.", show_default=False)
    ] = None,
    style: Annotated[
        str | None,
        typer.Argument(metavar="STYLE", help="The picture whose manner it is painted in.", show_default=False),
    ] = None,
    styles: Annotated[
        list[str] | None,
        typer.Option(
            "--style", metavar="FILE[=W]", help="A style, with its weight; may be repeated.", rich_help_panel=PICTURES
        ),
    ] = None,
    style_scales: Annotated[
        list[float] | None,
        typer.Option(
            "--style-scale",
            metavar="N",
            help="Size of the style relative to the picture's; once, or for each style.",
            show_default="1",
            rich_help_panel=PICTURES,
        ),
    ] = None,
    style_sizes: Annotated[
        list[int] | None,
        typer.Option(
            "--style-size",
            metavar="PX",
            min=1,
            help="Instead of --style-scale: long side of the style in pixels; once, or for each style.",
            rich_help_panel=PICTURES,
        ),
    ] = None,
    style_masks: Annotated[
        list[str] | None,
        typer.Option(
            "--style-mask",
            metavar="FILE",
            help="White where the style is wanted; for each style, none for everywhere.",
            rich_help_panel=PICTURES,
        ),
    ] = None,
    style_regions: Annotated[
        list[str] | None,
        typer.Option(
            "--style-region",
            metavar="FILE",
            help="White where in the style picture to look; for each style, or none.",
            rich_help_panel=PICTURES,
        ),
    ] = None,
    content_mask: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="White where the content stays as it is.", rich_help_panel=PICTURES),
    ] = None,
    mask_feather: Annotated[
        int,
        typer.Option(
            metavar="PX",
            min=0,
            help="Soften the edges of all masks by so many pixels to either side.",
            rich_help_panel=PICTURES,
        ),
    ] = 0,
    colors: Annotated[
        str,
        typer.Option(
            help="style; match (the style recoloured to the content first); content-luminance (the content's colours).",
            rich_help_panel=PICTURES,
        ),
    ] = "style",
    init: Annotated[
        str, typer.Option(help="Start from content, style, gray, noise, or an image file.", rich_help_panel=PICTURES)
    ] = "content",
    noise: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            metavar="SHARE",
            help="How much seeded noise is mixed into the start.",
            rich_help_panel=PICTURES,
        ),
    ] = 0.0,
    size: Annotated[
        int | None,
        typer.Option(
            min=16,
            help="Long side in pixels.",
            show_default=f"{DEFAULT_SIZE}, or the content's if smaller",
            rich_help_panel=SCALES,
        ),
    ] = None,
    iterations: Annotated[
        str,
        typer.Option(
            metavar="N|N..M|N,N...",
            help="Steps of the optimiser: at each scale, from the first scale's to the last's, or a list.",
            rich_help_panel=SCALES,
        ),
    ] = Options.iterations,
    min_size: Annotated[
        int | None,
        typer.Option(
            min=16, help="Long side of the first scale, at least.", show_default="128", rich_help_panel=SCALES
        ),
    ] = None,
    scales: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="How many scales, each 1.41 times as large as the last; 1 paints at full size only.",
            show_default="as many as fit",
            rich_help_panel=SCALES,
        ),
    ] = None,
    border: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="N",
            help="Let the network see N pixels beyond the edges, copies of the nearest; 0 pads with zeros.",
            rich_help_panel=METHOD,
        ),
    ] = 0,
    average: Annotated[
        float | None,
        typer.Option(
            help="Decay of the average of the iterates, which is what is kept; 0 keeps the last one.",
            show_default="a tenth of the scale",
            rich_help_panel=METHOD,
        ),
    ] = None,
    stop_when_settled: Annotated[
        bool,
        typer.Option(
            "--stop-when-settled",
            help="End a scale once its lowest cost falls by less than --settled-fall in 25 iterations.",
            rich_help_panel=METHOD,
        ),
    ] = False,
    settled_fall: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="The fall that counts as settled; implies --stop-when-settled.",
            show_default="0.01",
            rich_help_panel=METHOD,
        ),
    ] = None,
    optimizer: Annotated[str, typer.Option(help=f"{registry.choices()}.", rich_help_panel=METHOD)] = "adam",
    learning_rate: Annotated[
        float | None,
        typer.Option(help="Step size.", show_default="0.02 for adam, measured for the others", rich_help_panel=METHOD),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of every random number.", rich_help_panel=METHOD)] = 0,
    content_weight: Annotated[
        float | None,
        typer.Option(help="alpha: how much the content counts.", show_default="measured", rich_help_panel=COST),
    ] = None,
    style_weight: Annotated[
        float | None,
        typer.Option(help="beta: how much the style counts.", show_default="measured", rich_help_panel=COST),
    ] = None,
    tv_weight: Annotated[
        float | None,
        typer.Option(help="gamma: how much smoothness counts.", show_default="measured", rich_help_panel=COST),
    ] = None,
    content_layers: Annotated[
        list[str] | None,
        typer.Option(
            "--content-layer",
            metavar="NAME[=W]",
            help="Where content is compared; W multiplies its balanced weight. May be repeated.",
            show_default="relu4_2",
            rich_help_panel=COST,
        ),
    ] = None,
    content_ws: Annotated[
        list[str] | None,
        typer.Option(
            "--content-w",
            metavar="NAME=V",
            help="Instead of --content-layer: V is the formula's own w of a layer.",
            rich_help_panel=COST,
        ),
    ] = None,
    style_layers: Annotated[
        list[str] | None,
        typer.Option(
            "--style-layer",
            metavar="NAME[=W]",
            help="Where style is compared; W multiplies its balanced weight. May be repeated.",
            show_default="relu1_1 ... relu5_1",
            rich_help_panel=COST,
        ),
    ] = None,
    style_lambdas: Annotated[
        list[str] | None,
        typer.Option(
            "--style-lambda",
            metavar="NAME=V",
            help="Instead of --style-layer: V is the formula's own lambda of a layer.",
            rich_help_panel=COST,
        ),
    ] = None,
    content_reduction: Annotated[
        str, typer.Option(help="mean (the same look at every size) or sum (the paper's).", rich_help_panel=COST)
    ] = "mean",
    statistics: Annotated[
        str,
        typer.Option(
            "--style-statistics",
            help=STATISTICS_HELP,
            rich_help_panel=COST,
        ),
    ] = "gram",
    match_every: MatchEvery = None,
    style_turns: StyleTurns = None,
    directions: Directions = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help=WEIGHTS_HELP,
            show_default=WEIGHTS_DEFAULT,
            rich_help_panel=COST,
        ),
    ] = None,
    preprocessing: Annotated[
        str | None,
        typer.Option(
            help=PREPROCESSING_HELP,
            show_default=PREPROCESSING_DEFAULT,
            rich_help_panel=COST,
        ),
    ] = None,
    pooling: Annotated[
        str | None,
        typer.Option(help="max or average.", show_default="max; average with random weights", rich_help_panel=COST),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            help="PNG, JPEG, WebP or TIFF by suffix; FOLDER/ (made if missing); or - for a PNG on standard output.",
            show_default="CONTENT_STYLE.png, or (2) and so on where that is taken",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    depth: Annotated[int, typer.Option(help="8 or 16 bits (PNG, TIFF).", rich_help_panel=OUTPUT)] = 8,
    quality: Annotated[
        int | None, typer.Option(min=1, max=100, help="Of JPEG and WebP.", show_default="95", rich_help_panel=OUTPUT)
    ] = None,
    save_every: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Also save OUTPUT_000N.png every N iterations.", rich_help_panel=OUTPUT),
    ] = None,
    animation: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="The way there, as animated WebP, GIF or PNG by suffix.", rich_help_panel=OUTPUT
        ),
    ] = None,
    report: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.html", help="A page with the pictures, cost curves and recipe.", rich_help_panel=OUTPUT
        ),
    ] = None,
    json_file: Annotated[
        str | None,
        typer.Option(
            "--json",
            metavar="FILE",
            help="Write a line of JSON per iteration; - for standard output.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Repeat the run that is written in a picture (or a .toml); other options change it.",
            rich_help_panel=METHOD,
        ),
    ] = None,
    changes: Changes = None,
    yes: Yes = False,
    no_recipe: Annotated[
        bool, typer.Option("--no-recipe", help="Write the picture without its recipe.", rich_help_panel=OUTPUT)
    ] = False,
    relative_paths: Annotated[
        bool,
        typer.Option(
            "--relative-paths",
            help="Keep paths in the recipe, from the picture's folder, instead of names alone.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Keep the run's state there; nstgpu resume FILE goes on.", rich_help_panel=OUTPUT
        ),
    ] = None,
    checkpoint_seconds: Annotated[
        float, typer.Option("--checkpoint-every", min=0, help="Seconds between two states.", rich_help_panel=OUTPUT)
    ] = CHECKPOINT_SECONDS,
    device: Annotated[str, typer.Option(help=DEVICE_HELP, rich_help_panel=MACHINE)] = "auto",
    precision: Annotated[str, typer.Option(help=PRECISION_HELP, rich_help_panel=MACHINE)] = "auto",
    threads: Annotated[
        int | None,
        typer.Option(min=1, help=THREADS_HELP, show_default="all cores", rich_help_panel=MACHINE),
    ] = None,
    tile: Annotated[
        str,
        typer.Option(
            metavar="auto|off|N",
            help="Paint in tiles of N pixels; the picture is the same. auto: when memory is short.",
            rich_help_panel=MACHINE,
        ),
    ] = "auto",
    force: Annotated[
        bool,
        typer.Option("--force", help="Overwrite files that are there already.", rich_help_panel=OUTPUT),
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help=f"A first look: {described('quick')}.", rich_help_panel=METHOD)
    ] = False,
    best: Annotated[
        bool,
        typer.Option(
            "--best",
            help=f"For the wall: {described('best')}. What is given besides wins over either.",
            rich_help_panel=METHOD,
        ),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Print what would be done, with every weight measured; write nothing.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    live: Live = False,
    live_lines: LiveLines = None,
    quiet: Quiet = False,
    debug: Debug = False,
    version: Annotated[bool, VERSION] = False,
) -> None:
    """Paint CONTENT in the manner of STYLE, from coarse to fine.

    Ctrl-C ends the run early and still writes the picture.
    """
    given = {name: value for name, value in context.params.items() if was_given(context, name)}
    presets = [name for name in PRESETS if given.pop(name, False)]
    for name in ACTED_ON_HERE:
        given.pop(name, None)
    from ..engine.imaging.files import pipes_read_once
    from ..kernels.errors import DeviceError

    options = options_of(dict(given), recipe, presets, yes=yes)
    if live and not dry_run:
        from .painting.in_browser import in_browser

        raise typer.Exit(in_browser(sys.argv[1:], options, run))
    try:
        with pipes_read_once():
            paint(options, dry_run=dry_run, live_frame=live_lines)
    except DeviceError as error:
        if recipe is None or "device" in given:
            raise
        raise DeviceError(f"{error}; the recipe is of a run on {options.device}, --device auto paints here") from error


def was_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name not in ("DEFAULT", "DEFAULT_MAP")
