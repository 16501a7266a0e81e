"""The files that a recipe or a checkpoint names, found again.

A recipe or a checkpoint may come from anybody. What it names is shown before it is read, only files beside it and in
the current folder are read without asking, and only what has the checksum that it says is taken.
"""

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ...runs.files import STANDARD_INPUT, AnySettings, checksum, is_file_spec, renamed
from ..terminal.messages import say

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

    given = {checksum(Path(path)): path for path in source.pictures}
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
    chosen = {place: _withchecksum(place, paths, sums, source) for place, paths in there.items()}
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


def _withchecksum(
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
        if checksum(path) == wanted:
            return path
    raise SettingsError(
        f"{there[0]} is not {_WHAT[name]} of {source.title}, which has the SHA-256 {wanted[:16]}; "
        f"put that in its place{source.instead(name)}"
    )


def _listed(paths: Iterable[Path | str]) -> str:
    return ", ".join(dict.fromkeys(map(str, paths)))
