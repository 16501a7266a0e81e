"""`nstgpu resume`: goes on with a run from its checkpoint; `painting` acts on what stands in it."""

from typing import Annotated

import typer

from .options import Debug, LiveLines, Quiet, Yes
from .painting import repeating
from .painting.paint import paint


def resume(
    checkpoint: Annotated[str, typer.Argument(metavar="FILE", help="What --checkpoint wrote.", show_default=False)],
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            help="Write the picture there instead; - for standard output.",
            show_default="the run's own",
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="Where the weights are now; they must be the run's own.", show_default="where they were"),
    ] = None,
    iterations: Annotated[
        str | None,
        typer.Option(
            metavar="N|N..M|N,N...",
            help="How many, from the scale on at which the run is: more than it was begun with.",
            show_default="the run's own",
        ),
    ] = None,
    pictures: Annotated[
        list[str] | None,
        typer.Option(
            "--picture",
            metavar="FILE",
            help="A picture that came out of a pipe, or has moved, again; told by its checksum. May be repeated.",
        ),
    ] = None,
    yes: Yes = False,
    live_lines: LiveLines = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Go on with a run that was interrupted, to the very same picture; or with one that has ended, to more iterations.

    Pictures are read anew from where they were. A checkpoint that you have from somebody else says where to write only
    with --yes.
    """
    del debug  # acted on where errors are reported
    from ..engine.imaging.files import pipes_read_once
    from ..engine.optimizers.checkpoint import read
    from ..runs.transfer import open_weights

    state, text = read(checkpoint)
    anew = repeating.Anew(output, weights, iterations, yes, quiet, tuple(pictures or ()))
    with pipes_read_once():
        options = repeating.from_checkpoint(checkpoint, text, anew)
        network = None if weights is None else open_weights(options, only_named=True)
        paint(options, state, more=iterations, network=network, live_frame=live_lines)
