"""`nstgpu run --live`: the run in a process of its own, and the studio's page of it in the browser until its end."""

import asyncio
import signal
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...runs.settings import Options, styles_of
from ..terminal.messages import say
from .destinations import STANDARD

if TYPE_CHECKING:
    from ...studio.jobs.studio import Studio

FLAG = "--live"
_SHOWN = 1024
"""Long side of the pictures that the page shows, in pixels."""
_LAST_LOOK = 1.5
"""Seconds in which whoever watches gets the last frame."""


def in_browser(words: Sequence[str], options: Options, run: Callable[..., Any]) -> int:
    """Runs the command line `words` with its page beside it; returns the run's exit code.

    run: what declares its options. It has this terminal, with its bar, its messages and Ctrl-C. Raises SettingsError
    and ImageError.
    """
    from ...studio.program import check_installed, program

    check_installed()
    from ...studio.jobs.record import Record, new_id
    from ...studio.jobs.shelf import Shelf
    from ...studio.limits import Limits
    from ...studio.web.session import Session, listen

    with tempfile.TemporaryDirectory(prefix="nstgpu-live-") as folder:
        runs = Shelf(Path(folder))
        record = Record(id=new_id(), created=time.time(), name=Path(options.content).stem, styles=len(options.styles))
        with runs.staging() as staged:
            _show_inputs(options, staged)
            runs.begin(record, staged)
        own = replace(program(run), given=tuple(word for word in words if word != FLAG))
        listening = listen("127.0.0.1", 0)
        session = Session(runs, own, Limits(), ("auto",), "127.0.0.1", listening, wants_token=False, say=say)
        if not options.quiet:
            say(f"watch it at {session.address}#/run/{record.id}")
        before = signal.signal(signal.SIGINT, lambda *_: None)  # it is the run's, which ends, and this with it
        try:
            session.run(
                None if options.quiet else f"#/run/{record.id}",
                until=lambda studio: asyncio.ensure_future(_ended(studio, record.id)),
            )
        finally:
            signal.signal(signal.SIGINT, before)
        code = session.studio.job(record.id).code
    return 1 if code is None else code if code >= 0 else 128 - code


def _show_inputs(options: Options, folder: Path) -> None:
    """What the page shows of them; those out of a pipe are the run's to refuse."""
    from ...engine.imaging import files
    from ...studio.jobs import shelf

    named = {shelf.CONTENT: options.content}
    named |= {shelf.style(number): str(style.picture) for number, style in enumerate(styles_of(options))}
    for name, path in named.items():
        if path != STANDARD:
            files.preview(files.read(path).pixels, _SHOWN).save(folder / name)


async def _ended(studio: "Studio", run: str) -> None:
    """Once the run has ended, and whoever watches has seen its last frame."""
    job = studio.job(run)
    while job.code is None and job.record.state != "failed":
        await asyncio.sleep(0.05)
    if job.audience.watchers:
        await asyncio.sleep(_LAST_LOOK)
