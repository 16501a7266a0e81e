"""Options that several commands take, as typer reads them: one text for each, so that they say the same."""

from typing import Annotated, Any

import typer

from ..engine.costs.statistics.registry import choices
from ..kernels.cuda.precisions import on_tensor_cores

WEIGHTS_HELP = "mini, vgg19, vgg16, a VGG weights file (.h5, .keras, .pth, .safetensors and others), or random:SEED."
WEIGHTS_DEFAULT = "vgg19 once fetched, else mini"
PREPROCESSING_HELP = "The weights' own: caffe, torchvision, unit (RGB 0..1), tf (-1..1) or matconvnet."
PREPROCESSING_DEFAULT = "what the file says, else caffe"
DEVICE_HELP = "auto, cuda, cuda:1, cpu, reference or emulator; run also takes several: cuda:0,1 or cuda:all."
*_OTHERS, _LAST = on_tensor_cores()
PRECISION_HELP = f"auto, fp32, or on a GPU {', '.join(_OTHERS)} or {_LAST}."
STATISTICS_HELP = f"What of a layer is style: {choices()}; or several: gram+w2, gram=1,w2=0.5."
COST = "Cost"
THREADS_HELP = "Threads of the cpu device."

WeightsFile = Annotated[str | None, typer.Option(help=WEIGHTS_HELP, show_default=WEIGHTS_DEFAULT)]
Preprocessing = Annotated[str | None, typer.Option(help=PREPROCESSING_HELP, show_default=PREPROCESSING_DEFAULT)]
DeviceName = Annotated[str, typer.Option(help=DEVICE_HELP)]
Precision = Annotated[str, typer.Option(help=PRECISION_HELP)]
Threads = Annotated[int | None, typer.Option(min=1, help=THREADS_HELP, show_default="all cores")]
StyleStatistics = Annotated[str, typer.Option("--style-statistics", help=STATISTICS_HELP)]
MatchEvery = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Of neighbors: iterations for which matches are kept.",
        show_default="25",
        rich_help_panel=COST,
    ),
]
StyleTurns = Annotated[
    int | None,
    typer.Option(
        metavar="1|2|4",
        help="Of neighbors: look at styles also upside down (2), and on either side (4).",
        show_default="1",
        rich_help_panel=COST,
    ),
]
Directions = Annotated[
    int | None,
    typer.Option(
        metavar="K",
        help="Of sliced: directions along which distributions are compared.",
        show_default="64",
        rich_help_panel=COST,
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show a traceback when something fails.")]
Yes = Annotated[
    bool,
    typer.Option("--yes", "-y", help="Read, and on resume write, what the file names anywhere, without asking."),
]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--change",
        metavar="'N NAME=VALUE'",
        help="After N iterations in all, go on with another setting, as in '250 style_weight=2e4'; may be repeated.",
        rich_help_panel="Method",
    ),
]
Live = Annotated[
    bool,
    typer.Option(
        "--live",
        help="Watch it, and change its mind, in the browser; needs the extra serve.",
        rich_help_panel="Output",
    ),
]
LiveLines = Annotated[
    str | None,
    typer.Option(
        "--live-lines",
        metavar="FRAME.webp",
        hidden=True,
        help="Speak with another program on standard input and output, as cli/painting/live.py says.",
    ),
]


def _print_version(wanted: bool) -> None:
    if wanted:
        from .. import __version__

        typer.echo(f"nstgpu {__version__}")
        raise typer.Exit


VERSION: Any = typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
