"""Which pictures a batch is to make: named, checked, and compared with what is there, before anything is painted."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...engine.wording import counted
from ...runs.changes import changes_of
from ...runs.checks import check_options
from ...runs.files import is_piped, place, renamed
from ...runs.settings import Options, styles_of
from ...runs.transfer import size_of
from ..kept import Kept
from ..tasks import Outcome, Task, one_line
from .existing import difference
from .names import Template


@dataclass(frozen=True)
class Plan:
    """A batch before it begins."""

    folder: Path
    tasks: tuple[Task, ...]
    """All of them, in their order."""
    known: Mapping[int, Outcome]
    """What is known of some by now, by their numbers: there already, or nothing to paint from."""

    @property
    def missing(self) -> tuple[Task, ...]:
        """What is left to be painted."""
        return tuple(task for task in self.tasks if task.number not in self.known)


def product(contents: Sequence[str], styles: Sequence[str], common: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The settings of every content in every style, one style after the other."""
    return [{**common, "content": content, "styles": (style,)} for style in styles for content in contents]


def plan(
    rows: Iterable[Mapping[str, Any]],
    folder: Path,
    template: Template,
    kept: Kept,
    *,
    force: bool = False,
    relative_paths: bool = False,
) -> Plan:
    """What to make of rows of settings, in `folder`.

    A picture whose content or style is not there, or can't be read, has failed; any other fault is the batch's: raises
    SettingsError, DeviceError, WeightsError and ImageError for values that can't be, names that two pictures would
    have, and files that would be overwritten, unless `force` allows that.
    """
    tasks, known = [], {}
    for number, values in enumerate(rows):
        options = Options(**values, relative_paths=relative_paths, force=force)
        problem, size = _looked_at(options)
        output = template.path(folder, options, number + 1, size)
        task = Task(number, Options(**{**values, "output": str(output)}, relative_paths=relative_paths), size)
        tasks.append(task)
        if problem is not None:
            known[number] = Outcome(task, "failed", problem)
    _check_outputs(tasks)
    known |= {} if force else _there(tasks, known, kept)
    return Plan(folder, tuple(tasks), known)


def _looked_at(options: Options) -> tuple[str | None, int]:
    """Why a picture can't be painted, if that is known by now, and its long side in pixels as far as that is."""
    from ...engine.imaging.codecs.decoding import opened
    from ...engine.imaging.files import ImageError

    size = size_of(options, 1 << 20)
    try:
        check_options(options, styles_of(options))
        changes_of(options)
        renamed(options, _refuse_pipe)
        if options.size is None:
            size = size_of(options, max(opened(Path(options.content)).size))
    except ImageError as error:
        return one_line(error), size
    return None, size


def _refuse_pipe(_: str, __: int, path: str) -> str:
    from ...engine.imaging.files import ImageError

    if is_piped(path) or os.path.isdir(path):
        raise ImageError(f"{path} is no plain file, and a batch reads nothing else; save the picture in one")
    return path


def _check_outputs(tasks: Sequence[Task]) -> None:
    """Raises SettingsError and ImageError for names that two have, that inputs have, and that can't be written."""
    from ...engine.errors import SettingsError
    from ...engine.imaging import files as images

    read: set[str] = set()

    def note(_: str, __: int, path: str) -> str:
        read.add(place(path))
        return path

    for task in tasks:
        renamed(task.options, note)
    taken: dict[str, Task] = {}
    for task in tasks:
        at = place(task.options.output)
        if at in taken:
            raise SettingsError(f"{_both(taken[at], task)} would both be {task.output}; add to --name what differs")
        if at in read:
            raise SettingsError(
                f"{task.output} is an input and would be overwritten; choose another --name or --output"
            )
        taken[at] = task
        images.check_destination(task.output, depth=task.options.depth, quality=task.options.quality)


def _both(one: Task, other: Task) -> str:
    if one.options.content != other.options.content:
        return f"{one.options.content} and {other.options.content}"
    if one.options.styles != other.options.styles:
        return f"{one.options.content} in {', '.join(one.options.styles)} and in {', '.join(other.options.styles)}"
    return f"{one.options.content} of row {one.number + 1} and of row {other.number + 1}"


def _there(tasks: Sequence[Task], known: Mapping[int, Outcome], kept: Kept) -> dict[int, Outcome]:
    """Those that are there already; raises SettingsError for files that are there and something else."""
    from ...engine.errors import SettingsError

    there: dict[int, Outcome] = {}
    others: list[str] = []
    for task in tasks:
        if not os.path.lexists(task.output) or task.number in known:
            continue
        differs = difference(task, kept.network(task.options), kept.checksum)
        if differs is None:
            there[task.number] = Outcome(task, "skipped")
        else:
            how = f"was painted otherwise ({differs})" if differs else "has no recipe to tell what it is"
            others.append(f"{task.output} exists already and {how}")
    if others:
        more = f" ({counted(len(others), 'such file')})" if len(others) > 1 else ""
        raise SettingsError(f"{others[0]}; --force paints it anew, or choose another --name or --output{more}")
    return there
