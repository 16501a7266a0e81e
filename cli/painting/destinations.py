"""Where a run writes: nothing that is read, nothing twice, and nothing that is there already unless that is wanted."""

import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ...runs.files import folded, place
from ...runs.settings import DEFAULT_SIZE, Options, is_same_file, iterations_of, split_weight
from ..terminal.streams import is_closed

if TYPE_CHECKING:
    from ...engine.transfer import Style

STANDARD = "-"
"""Standard input or output instead of a file."""
SIDES = {"animation": "--animation", "report": "--report", "json_file": "--json", "checkpoint": "--checkpoint"}
"""Files that are written beside the picture: the fields of `Options`, and what a user calls them."""
_NUMBERED = re.compile(r"(.*)_(\d{4,})", re.DOTALL)


def numbered(output: Path, iteration: int) -> Path:
    """The name of the picture after this iteration, for --save-every."""
    return output.with_name(f"{output.stem}_{iteration:04d}{output.suffix}")


def is_folder(path: str) -> bool:
    """Whether a name is a folder's: one that is there, or one that ends like a folder's."""
    return path != STANDARD and (path.endswith(("/", os.sep)) or os.path.isdir(path))


def refuse_folder(path: str | None, option: str) -> None:
    """Raises SettingsError for a folder where one file is written."""
    from ...engine.errors import SettingsError

    if path is not None and is_folder(path):
        raise SettingsError(f"{option} {path} is a folder; name the file to write in it")


def refuse_standard_output(option: str = "--output") -> None:
    """Raises SettingsError where standard output can't take a picture."""
    from ...engine.errors import SettingsError
    from ..terminal.streams import why_no_picture

    if reason := why_no_picture():
        raise SettingsError(
            f"{option} - writes a PNG to standard output, which {reason}; send that to a file or a program, or give a "
            "name"
        )


def fresh(output: str, beside: Callable[[Path], Iterable[str | Path]] = lambda _: ()) -> str:
    """A default name as it is, or as `name (2).png` and so on where that is taken, or one of those beside it."""
    path, number = Path(output), 1
    while any(os.path.lexists(one) for one in (path, *beside(path))):
        number += 1
        path = Path(output).with_name(f"{Path(output).stem} ({number}){Path(output).suffix}")
    return str(path)


def saved_on_the_way(every: int | None) -> Callable[[Path], Iterable[str]]:
    """What is there of the pictures that --save-every would write beside one, for `fresh`."""
    return lambda output: _taken(output, every, None) if every else ()


def refuse_existing(path: str | Path, option: str, remedy: str = "") -> None:
    """Raises SettingsError for a file that is there; a device or a pipe is written to, not replaced."""
    from ...engine.errors import SettingsError

    if os.path.lexists(path) and (os.path.isfile(path) or not os.path.exists(path)):
        raise SettingsError(f"{path} exists already; {remedy}--force overwrites it, or choose another {option}")


def check_files(options: Options, styles: "list[Style]", *, resumed: bool = False) -> dict[str, str]:
    """Refuses, before any work, what could not be written at its end, outputs that are inputs or one another, and
    without --force those that are there already, unless they are a resumed run's own.

    A run that can go on is not lost to what it writes beside its picture: returns, for a resumed run, which of those
    options can't be written, and why. Raises SettingsError and ImageError.
    """
    from ...engine.errors import SettingsError
    from ...engine.imaging import files as images

    refuse_folder(options.output, "--output")
    if options.output == STANDARD:
        _check_standard_output(options)
    else:
        images.check_destination(options.output, depth=options.depth, quality=options.quality)
    unwritable: dict[str, str] = {}
    for name, option in SIDES.items():
        try:
            _check_side(name, option, getattr(options, name))
        except (SettingsError, images.ImageError) as error:
            if not resumed:
                raise
            unwritable[name] = str(error)
    written = {"--output": options.output, "--json": options.json_file, "--animation": options.animation}
    written |= {"--report": options.report, "--checkpoint": options.checkpoint}
    named = {option: path for option, path in written.items() if path is not None}
    _refuse_inputs(options, styles, named)
    _refuse_twice(options, named)
    if not (options.force or resumed):
        _refuse_existing(options, named)
    return unwritable


def _check_side(name: str, option: str, path: str | None) -> None:
    """Raises SettingsError and ImageError for what can't be written beside a picture."""
    from ...engine.errors import SettingsError
    from ...engine.imaging import files as images
    from ...engine.reporting import animation, report

    if path == STANDARD and name == "json_file" and is_closed():
        raise SettingsError(f"{option} - writes to standard output, which is closed; name a file")
    if path is None or path == STANDARD:
        return
    refuse_folder(path, option)
    if name == "animation":
        animation.Animation(path, every=1).close()
    elif name == "report":
        report.check_destination(path)
    else:
        images.check_place(Path(path))


def _check_standard_output(options: Options) -> None:
    from ...engine.errors import SettingsError

    refuse_standard_output()
    problem = ""
    if options.save_every is not None:
        problem = "gives --save-every no name for its pictures; name a file"
    elif options.quality is not None or options.depth not in (8, 16):
        problem = "writes a PNG, of 8 or 16 bits (--depth) and without --quality; name a file for others"
    if problem:
        raise SettingsError(f"--output - {problem}")


def default_name(options: Options, suffix: str = ".png") -> str:
    """After the content and the styles, for the current folder: content_style.png."""
    names = [options.content, *(split_weight(text)[0] for text in options.styles)]
    return "_".join("stdin" if name == STANDARD else Path(name).stem for name in names) + suffix


def folders(options: Options) -> set[Path]:
    """Those that a run writes in."""
    written = (options.output, options.json_file, options.animation, options.report, options.checkpoint)
    return {Path(os.path.realpath(path)).parent for path in written if path and path != STANDARD}


def make_folders(options: Options, *, resumed: bool = False) -> None:
    """Those that a run writes in and that are not there yet; raises ImageError, of a resumed run for its picture's."""
    from ...engine.imaging.files import ImageError

    pictures = Path(os.path.realpath(options.output)).parent
    for folder in folders(options):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            if resumed and folder != pictures:
                continue  # as is said where something is written there
            raise ImageError(f"cannot make {folder}: {error.strerror or error}; write somewhere else") from error


def _refuse_inputs(options: Options, styles: "list[Style]", named: dict[str, str]) -> None:
    from ...engine.errors import SettingsError

    read = [options.content, *(str(style.picture) for style in styles), *options.style_masks, *options.style_regions]
    read += [options.content_mask or "", options.weights or ""]
    read += [] if options.init in ("content", "style", "gray", "noise") else [options.init]
    for option, path in named.items():
        if any(is_same_file(path, other) for other in read if other):
            raise SettingsError(f"{path} is an input and would be overwritten; choose another {option}")
    if options.save_every and options.output != STANDARD:
        for path in _taken(Path(options.output), options.save_every, _last(options)):
            if any(is_same_file(path, other) for other in read if other):
                raise SettingsError(
                    f"{path} is an input, and --save-every would overwrite it; choose another --output or --save-every"
                )


def _refuse_twice(options: Options, named: dict[str, str]) -> None:
    from ...engine.errors import SettingsError

    seen: dict[str, str] = {}
    for option, path in named.items():
        at = place(path)
        if at in seen:
            where = "standard output" if path == STANDARD else path
            raise SettingsError(f"{seen[at]} and {option} both go to {where}; give each a name of its own")
        seen[at] = option
    if not options.save_every or options.output == STANDARD:
        return
    output, last = Path(place(options.output)), _last(options)
    for option, path in named.items():
        other = Path(place(path))
        number = _number(other.name, output)
        if other.parent == output.parent and number and number % options.save_every == 0 and number <= last:
            raise SettingsError(f"{path} is a name that --save-every gives; choose another {option}")


def _refuse_existing(options: Options, named: dict[str, str]) -> None:
    from ...engine.errors import SettingsError

    for option, path in named.items():
        if path != STANDARD:
            remedy = f"nstgpu resume {path} goes on with it, " if option == "--checkpoint" else ""
            refuse_existing(path, option, remedy)
    if options.save_every and options.output != STANDARD:
        for path in _taken(Path(options.output), options.save_every, _last(options)):
            raise SettingsError(
                f"{path}, which --save-every would write, exists already; --force overwrites it, or choose another "
                "--output"
            )


def _taken(output: Path, every: int, last: int | None) -> Iterator[str]:
    """The files that are there under a name that --save-every would give, up to this iteration."""
    try:
        names = sorted(os.listdir(output.parent))
    except OSError:
        return
    for name in names:
        number = _number(name, output)
        if number and number % every == 0 and (last is None or number <= last):
            yield str(output.with_name(name))


def _number(name: str, output: Path) -> int | None:
    """Of the iteration after which a picture of this name would be saved; None if it is no such name."""
    stem, suffix = os.path.splitext(name)
    match = _NUMBERED.fullmatch(stem)
    if match is None or len(match[2]) > 10 or f"{int(match[2]):04d}" != match[2]:
        return None
    same = match[1] == output.stem and suffix == output.suffix
    return int(match[2]) if same or folded(match[1] + suffix) == folded(output.name) else None


def _last(options: Options) -> int:
    """Iterations that the run has at most; its scales are known for sure once the pictures are."""
    from ...engine.optimizers.scales import MIN_SIZE, at_each, plan_scales

    most = options.scales or len(
        plan_scales(max(1, options.size or DEFAULT_SIZE), min_size=max(1, options.min_size or MIN_SIZE), iterations=1)
    )
    return sum(at_each(iterations_of(options.iterations), most))
