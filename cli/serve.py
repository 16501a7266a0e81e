"""`nstgpu serve`: the studio in the browser."""

from pathlib import Path
from typing import Annotated

import typer

from .options import Debug, Quiet
from .run import run
from .terminal.messages import say

PORT = 8642


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on; others than loopback want a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = PORT,
    folder: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where runs are kept, a folder each.", show_default="the user's data folder"),
    ] = None,
    devices: Annotated[
        list[str] | None,
        typer.Option(
            "--device",
            help="Paints one run at a time; as for run. Repeated: so many runs at a time.",
            show_default="auto",
        ),
    ] = None,
    token: Annotated[bool, typer.Option("--token", help="Want a token from this machine's own users too.")] = False,
    show: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Watch and steer paintings in the browser: runs in a queue, each in a folder of its own.

    Needs the extra "serve". Ctrl-C ends it; what was painted is gone on with at the next start.
    """
    del debug  # acted on where errors are reported
    from ..studio.program import check_installed, program

    check_installed()
    from ..kernels.open import check_names
    from ..studio.jobs.shelf import Shelf
    from ..studio.limits import Limits
    from ..studio.web.session import Session, listen

    for device in devices or ():
        check_names(device, "auto")
    runs = Shelf(folder or _data_folder())
    listening = listen(host, port)
    lanes = tuple(devices or ("auto",))
    session = Session(runs, program(run), Limits(), lanes, host, listening, wants_token=token, say=say)
    if not quiet:
        for line in session.exposure():
            say(line)
        print(f"nstgpu studio: {session.address}", flush=True)
        say(f"runs are kept in {runs.folder}; Ctrl-C ends the server, and the next one goes on with them")
    session.run("" if show else None)


def _data_folder() -> Path:
    import platformdirs

    return Path(platformdirs.user_data_dir("nstgpu", appauthor=False)) / "studio"
