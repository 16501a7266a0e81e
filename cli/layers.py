"""`nstgpu layers`: what every layer looks for, as one contact sheet a layer.

Finds the pictures, streams them past `TopActivations`, and writes the sheets; nothing is computed here.
"""

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from ..engine.wording import counted
from .options import Debug, DeviceName, Preprocessing, Quiet, Threads, WeightsFile
from .painting.destinations import STANDARD, fresh, refuse_existing
from .terminal.messages import is_for_users, printable, say
from .terminal.progress import on_terminal, pulse

if TYPE_CHECKING:
    from ..engine.analysis.top_activations import TopActivations
    from ..weights import Weights

DEFAULT_SIZE = 384
DEFAULT_UNITS = 18


def layers(
    pictures: Annotated[
        list[Path], typer.Argument(metavar="PICTURES", help="Folders of pictures, or pictures.", show_default=False)
    ],
    output: Annotated[
        str | None, typer.Option("-o", "--output", help="Folder for the sheets.", show_default="PICTURES_layers")
    ] = None,
    layer: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A layer to watch; may be repeated.", show_default="all of them"),
    ] = None,
    unit: Annotated[
        list[int] | None,
        typer.Option(metavar="INDEX", help="A unit to watch; may be repeated.", show_default="see --units"),
    ] = None,
    units: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Units per layer, evenly spread.", show_default=f"{DEFAULT_UNITS}"),
    ] = None,
    size: Annotated[int, typer.Option(min=16, help="Larger pictures are shrunk to this long side.")] = DEFAULT_SIZE,
    weights: WeightsFile = None,
    preprocessing: Preprocessing = None,
    device: DeviceName = "auto",
    threads: Threads = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that are there already.")] = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Show what units look for: the patches of PICTURES that excite each of them most, nine a unit.

    One sheet per layer. Files of a folder that are no pictures are skipped. Ctrl-C ends early and still writes the
    sheets.
    """
    del debug  # acted on where errors are reported
    from ..engine.analysis.top_activations import TopActivations
    from ..engine.errors import SettingsError
    from ..engine.imaging.files import ImageError
    from ..weights import default_weights, load_weights

    if unit and units is not None:
        raise SettingsError("--unit and --units exclude each other: name units, or say how many")
    if output == STANDARD:
        raise SettingsError(
            "--output - has no room for a sheet a layer; give --output a folder (./- if it is called -)"
        )
    first = pictures[0].resolve()
    name = first.name if first.is_dir() else "stdin" if str(pictures[0]) == STANDARD else first.stem
    named = Path(f"{name}_layers" if force else fresh(f"{name}_layers"))
    destination = named if output is None else Path(output)
    _check_folder(destination, pictures)
    count = sum(1 for _ in _found(pictures))
    if count == 0:
        raise ImageError(f"there is no file in {', '.join(map(str, pictures))}; give folders of pictures, or pictures")
    network = load_weights(default_weights() if weights is None else weights, preprocessing=preprocessing)
    observer = TopActivations(
        network, layers=layer, units=unit or units or DEFAULT_UNITS, size=size, device=device, threads=threads
    )
    for tap in () if force else observer.taps:
        refuse_existing(destination / f"{tap}.png", "--output")
    if not quiet:
        if network.layout == "generated":
            say(
                f"note: {network.name} is not trained, so its units look for nothing in particular; "
                "nstgpu weights fetch vgg19 gets trained weights (80 MB)"
            )
        say(f"showing {counted(count, 'file')} to {network.name} on {observer.device.name}")
    with _bar(count, quiet) as progress:
        interrupted = _show(observer, pictures, progress)
    if observer.images == 0:
        if interrupted:
            raise typer.Abort
        tried = "the only file" if count == 1 else f"none of the {count} files"
        raise ImageError(f"{tried} in {', '.join(map(str, pictures))} could be used; give PNG, JPEG, WebP or TIFF")
    destination.mkdir(parents=True, exist_ok=True)
    dead = _write(observer, network, destination)
    if not quiet:
        for tap in dead:
            say(f"note: no unit of {tap} that was watched was ever excited, so it has no sheet; show it more pictures")
        how = (
            f"stopped after {observer.images} of {count} files" if interrupted else counted(observer.images, "picture")
        )
        say(f"wrote {counted(len(observer.taps) - len(dead), 'sheet')} to {destination} ({how})")


class _File(NamedTuple):
    path: Path
    named: bool
    """Asked for by its own name: then it must be a picture."""


class _Progress(NamedTuple):
    advance: Callable[[], None]
    say: Callable[[str], None]
    """A line above the bar."""


def _found(pictures: Sequence[Path]) -> Iterator[_File]:
    """The files to look at, one at a time: a folder may hold any number, so they are neither gathered nor sorted."""
    for path in pictures:
        if not path.is_dir():
            yield _File(path, named=True)
            continue
        with os.scandir(path) as entries:
            yield from (_File(Path(e.path), named=False) for e in entries if e.is_file() and e.name[0] != ".")


def _show(observer: "TopActivations", pictures: Sequence[Path], progress: _Progress) -> bool:
    """Shows every picture to the observer; returns whether Ctrl-C ended it early."""
    from ..engine.imaging.files import ImageError

    try:
        for file in _found(pictures):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                try:
                    observer.update(file.path, str(file.path))
                except ImageError as error:
                    if file.named:
                        raise
                    progress.say(f"skipped: {' '.join(str(error).split())}")
            for warning in (one for one in caught if is_for_users(one.category)):
                progress.say(f"note: {warning.message}")
            progress.advance()
    except KeyboardInterrupt:
        return True
    return False


def _write(observer: "TopActivations", network: "Weights", destination: Path) -> list[str]:
    """Writes a sheet per layer; returns the layers in which nothing was excited, which have none."""
    from ..engine.analysis import contact_sheets as sheets
    from ..engine.imaging import files as images

    dead = []
    for tap in observer.taps:
        found, field, width = observer.units(tap), observer.fields[tap], observer.widths[tap]
        if not found:
            dead.append(tap)
            continue
        pictures = counted(observer.images, "picture")
        caption = f"{len(found)} of {width} units · each sees {field.size} x {field.size} pixels · {pictures}"
        sheet = sheets.contact_sheet(found, field, f"What excites {tap}", f"{caption} · {network.name}")
        recipe = {"weights": network.name, "weights sha256": network.checksum, "layer": tap}
        images.save(destination / f"{tap}.png", sheet, recipe=recipe)
    return dead


def _check_folder(destination: Path, pictures: Sequence[Path]) -> None:
    """Refuses, before the work begins, a folder that cannot be written to, or that holds the pictures."""
    from ..engine.errors import SettingsError
    from ..engine.imaging.files import check_destination

    if destination.exists() and not destination.is_dir():
        raise SettingsError(f"{destination} is a file; give --output a folder")
    check_destination(destination / "sheet.png")
    for path in pictures:
        folder = path if path.is_dir() else path.parent
        if destination.is_dir() and folder.is_dir() and os.path.samefile(folder, destination):
            raise SettingsError(f"the pictures are in {destination} themselves; choose another --output")


def _bar(count: int, quiet: bool) -> AbstractContextManager[_Progress]:
    if quiet:
        return nullcontext(_Progress(lambda: None, lambda _: None))
    return _shown_bar(count) if on_terminal() else nullcontext(_lines(count))


def _lines(count: int) -> _Progress:
    due, done = pulse(), 0

    def advance() -> None:
        nonlocal done
        done += 1
        if due():
            say(f"{done} of {counted(count, 'file')}")

    return _Progress(advance, say)


@contextmanager
def _shown_bar(count: int) -> Iterator[_Progress]:
    from rich import progress as rich
    from rich.console import Console

    columns = (
        rich.BarColumn(bar_width=None),
        rich.MofNCompleteColumn(),
        rich.TimeRemainingColumn(compact=True),
        rich.TextColumn("left"),
    )
    with rich.Progress(*columns, console=Console(stderr=True)) as bars:
        task = bars.add_task("", total=count)

        def say_above(text: str) -> None:
            bars.console.print(printable(text), markup=False, highlight=False, soft_wrap=True)

        yield _Progress(lambda: bars.advance(task), say_above)
