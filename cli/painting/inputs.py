"""The files that a run reads: named and checksummed in its recipe and its checkpoint, and found again from there.

A recipe or a checkpoint may come from anybody. What it names is shown before it is read, only files beside it and in
the current folder are read without asking, and only what has the checksum that it says is taken.
"""

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ...runs.settings import Settings, split_weight
from ..terminal.messages import say

if TYPE_CHECKING:
    from ...weights import Weights

SUMS = "_sha256"
"""Behind the name of a setting that names files: their SHA-256, in the same order, "" where there is none."""
INIT_WORDS = ("content", "style", "gray", "noise")
STANDARD_INPUT = "-"
_WHAT = {
    "content": "the content",
    "styles": "a style",
    "style_masks": "the mask of a style",
    "style_regions": "the region of a style",
    "content_mask": "the content mask",
    "init": "the picture to start from",
}
_OPTION = {
    "content": "as CONTENT",
    "styles": "with --style",
    "style_masks": "with --style-mask",
    "style_regions": "with --style-region",
    "content_mask": "with --content-mask",
    "init": "with --init",
}
_NO_FILE = {"style_masks": ("none",), "style_regions": ("none",), "init": INIT_WORDS}

AnySettings = TypeVar("AnySettings", bound=Settings)
Rename = Callable[[str, int, str], str]
"""From a setting, a number among its files and a path to another path."""


def renamed(settings: AnySettings, rename: Rename) -> AnySettings:
    """The settings with every picture's path changed; words that stand for none are left alone."""

    def one(name: str, number: int, text: str) -> str:
        return text if text in _NO_FILE.get(name, ()) else rename(name, number, text)

    changed: dict[str, Any] = {}
    for name in _WHAT:
        value = getattr(settings, name)
        if name == "styles":
            parts = [split_weight(text) for text in value]
            changed[name] = tuple(
                _joined(one(name, number, path), weight) for number, (path, weight) in enumerate(parts)
            )
        elif isinstance(value, tuple):
            changed[name] = tuple(one(name, number, text) for number, text in enumerate(value))
        elif value:
            changed[name] = one(name, 0, value)
    return replace(settings, **changed)


def _joined(path: str, weight: float) -> str:
    return f"{path}={weight!r}" if weight != 1 or "=" in path else path


# ---- what a recipe says of them ---------------------------------------------------------------------------------


def checksums(settings: Settings) -> dict[str, list[str]]:
    """SHA-256 (hex) of every file and of what comes out of pipes, by setting and in its order; "" for what is none."""
    sums: dict[str, list[str]] = {}

    def add(name: str, number: int, path: str) -> str:
        listed = sums.setdefault(name, [])
        listed += [""] * (number - len(listed))
        listed.append(_checksum(Path(path)))
        return path

    renamed(settings, add)
    return sums


def _checksum(path: Path) -> str:
    import hashlib

    from ...engine.imaging.files import ImageError, content_of

    if is_piped(str(path)):
        return hashlib.sha256(content_of(path)).hexdigest()
    if not path.is_file():
        return ""  # as reading it will say
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
    except OSError as error:
        raise ImageError(f"cannot read {path}: {error.strerror or error}") from error
    return digest.hexdigest()


def is_piped(path: str) -> bool:
    """Whether a picture comes out of standard input or a pipe, which gives it once."""
    return path == STANDARD_INPUT or (os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path))


def named_for(settings: AnySettings, folder: Path | None) -> AnySettings:
    """The settings as a recipe has them: files by name alone or, with the picture's folder, by the path from there."""

    from ...engine.reporting.recipe import spelled

    def name(setting: str, number: int, path: str) -> str:
        del setting, number
        if is_piped(path):
            return STANDARD_INPUT
        if folder is None:
            return spelled(Path(path).name)
        try:
            return spelled(Path(os.path.relpath(path, folder)).as_posix())
        except ValueError:  # on another drive
            return spelled(Path(path).name)

    named = renamed(settings, name)
    weights = settings.weights
    return named if weights is None or not is_file_spec(weights) else replace(named, weights=name("", 0, weights))


def is_file_spec(weights: str) -> bool:
    """Whether `--weights` names a file, rather than weights that nstgpu knows."""
    from ...weights.official.catalogue import official_named
    from ...weights.official.store import BUNDLED

    return weights != BUNDLED and official_named(weights) is None and not weights.startswith("random:")


# ---- found again ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Source:
    """A recipe or a checkpoint, and how far it is to be trusted."""

    file: Path
    title: str
    """How messages call it: "the recipe in a.png"."""
    yes: bool
    """Whether the user has said yes beforehand, or it is the user's own."""
    quiet: bool = False
    others: bool = True
    """Whether other files may be given instead."""
    pictures: tuple[str, ...] = ()
    """Given besides: each is taken for whatever has its checksum."""

    def instead(self, name: str) -> str:
        """What can be done besides putting the right file where it is looked for."""
        return f", or give another one {_OPTION[name]}" if self.others else ", or give it again with --picture FILE"

    @property
    def folders(self) -> list[Path]:
        """Where files are looked for: beside it, and in the current folder."""
        return [self.file.parent, Path()] if self.file.parent != Path() else [Path()]

    def within(self, path: Path) -> list[Path]:
        """Where a path leads to that stays in one of those folders; the file system is asked nothing."""
        folders = [os.path.abspath(folder) for folder in self.folders]
        places = [folder / path for folder in self.folders]
        return [
            place for place in places
            if any(os.path.abspath(place).startswith(folder.rstrip(os.sep) + os.sep) for folder in folders)
        ]  # fmt: skip


def found(settings: AnySettings, sums: Mapping[str, Sequence[str]], source: Source) -> AnySettings:
    """The settings with the paths of the files that they name, each with the checksum that is said of it.

    Shows the paths first, and asks before it looks at any that lead out of the folders. Raises SettingsError.
    """
    from ...engine.errors import SettingsError

    places: dict[tuple[str, int], list[Path]] = {}

    given = {_checksum(Path(path)): path for path in source.pictures}
    again: dict[tuple[str, int], str] = {}

    def look(name: str, number: int, text: str) -> str:
        listed = sums.get(name, ())
        if number < len(listed) and listed[number] in given:
            again[name, number] = given[listed[number]]
            return text
        if text == STANDARD_INPUT:
            remedy = source.instead(name).replace(", or", ";", 1)
            raise SettingsError(f"{source.title} took {_WHAT[name]} from a pipe, which is gone{remedy}")
        places[name, number] = [Path(text)]
        return text

    renamed(settings, look)
    files = {place: paths[0] for place, paths in places.items()}
    weights = settings.weights if settings.weights and is_file_spec(settings.weights) else None
    named = [*files.values(), *([Path(weights)] if weights else [])]
    outside = [path for path in named if not source.within(path)]
    if outside:
        ask(
            source,
            [f"{source.title} names {path}" for path in dict.fromkeys(map(str, outside))],
            "Read it?" if len(outside) == 1 else "Read them?",
            f"{source.title} names {_listed(outside)}, outside of its own and the current folder; "
            f"add --yes to read that{', or give another as an option' if source.others else ''}",
        )
    there = {place: _candidates(path, source.folders, source) for place, path in files.items()}
    for place, path in files.items():
        if not there[place]:
            raise SettingsError(_missing(place[0], path, source))
    if weights:
        from ...weights import weights_folder

        by_name = _candidates(Path(weights), [*source.folders, weights_folder()], source)
        settings = replace(settings, weights=str(by_name[0]) if by_name else weights)
    if not source.quiet:
        read = [*(str(paths[0]) for paths in there.values()), *([str(settings.weights)] if settings.weights else [])]
        say(f"{source.title} names {_listed(read)}")
    chosen = {place: _with_checksum(place, paths, sums, source) for place, paths in there.items()}
    return renamed(settings, lambda name, number, _: again.get((name, number)) or str(chosen[name, number]))


def _missing(name: str, path: Path, source: Source) -> str:
    where = " or ".join(dict.fromkeys(str(folder.absolute()) for folder in source.folders))
    return (
        f"{_WHAT[name]} of {source.title}, {path.name if path.anchor else path}, is not in {where}; "
        f"put it there{source.instead(name)}"
    )


def ask(source: Source, lines: Sequence[str], question: str, refusal: str) -> None:
    """Goes on if the user has said yes, or does now in a terminal; else raises SettingsError with `refusal`."""
    from ...engine.errors import SettingsError

    if source.yes:
        return
    if not all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr)):
        raise SettingsError(refusal)
    import typer

    for line in lines:
        say(line)
    if not typer.confirm(question, err=True):
        raise SettingsError("nothing was read or written")


def _candidates(path: Path, folders: Sequence[Path], source: Source) -> list[Path]:
    """The plain files that are called so, and then those that are called so but for their folders.

    A path that leads out of the source's folders has been asked about.
    """
    from ...engine.reporting.recipe import spelled

    found: list[Path] = []
    within = source.within(path)
    places = within or [folder / path for folder in folders]
    for place in [*places, *(folder / path.name for folder in folders)]:
        if os.path.isfile(place):
            found.append(place)
        elif "\\x" in place.name and os.path.isdir(place.parent):  # a name that is no Unicode
            with os.scandir(place.parent) as entries:
                found += [Path(e.path) for e in entries if spelled(e.name) == place.name and e.is_file()]
    return list(dict.fromkeys(found))


def _with_checksum(
    place: tuple[str, int], there: Sequence[Path], sums: Mapping[str, Sequence[str]], source: Source
) -> Path:
    """The one of some files that is meant; the first one where no checksum is said."""
    from ...engine.errors import SettingsError

    name, number = place
    listed = sums.get(name, ())
    wanted = listed[number] if number < len(listed) else ""
    if not wanted:
        return there[0]
    for path in there:
        if _checksum(path) == wanted:
            return path
    raise SettingsError(
        f"{there[0]} is not {_WHAT[name]} of {source.title}, which has the SHA-256 {wanted[:16]}; "
        f"put that in its place{source.instead(name)}"
    )


def _listed(paths: Iterable[Path | str]) -> str:
    return ", ".join(dict.fromkeys(map(str, paths)))


def open_weights(settings: Settings, *, only_named: bool = False) -> "Weights":
    """The weights that were asked for; where a checksum is said, whatever file has them.

    They are looked for in the file that is named and, without `only_named`, among the bundled and fetched ones. Raises
    WeightsError.
    """
    from ...weights import WeightsError, default_weights, known_weights, load_weights

    wanted = settings.weights_sha256
    if wanted is None:
        return load_weights(settings.weights or default_weights(), preprocessing=settings.preprocessing)
    known = [] if only_named else [entry.name for entry in known_weights() if entry.cached]
    problem, asked = "", settings.weights or default_weights()
    for spec in dict.fromkeys([asked, *known]):
        try:
            network = load_weights(spec, preprocessing=settings.preprocessing)
        except WeightsError as error:
            problem = problem or str(error)
            continue
        if network.checksum == wanted:
            return network
        problem = problem or f"{spec} holds others, {network.checksum[:16]}"
    reason, _, remedy = problem.partition("; ")
    if only_named:
        raise WeightsError(f"{reason}; --weights takes the run's own, which have the checksum {wanted[:16]}")
    fetch = f"{remedy}, or " if "weights fetch" in remedy else ""
    raise WeightsError(
        f"the run's weights, {asked} with the checksum {wanted[:16]}, are not to be had: {reason}; "
        f"{fetch}give the file that has them with --weights FILE"
    )
