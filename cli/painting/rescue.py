"""A finished picture that cannot be written where it should be goes where there is room."""

import os
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path


def written(
    path: Path, write: Callable[[Path], None], pipe: Callable[[], None] | None = None
) -> tuple[Path, Exception | None]:
    """Where `write` has written in the end: to `path` or, if that failed, to another folder; and why it failed.

    With `pipe`, which writes to standard output, that is tried instead of `path`, whose name alone counts then.

    Tries the current folder, the one for temporary files and the user's own, under a name that nothing has yet. Raises
    OSError, with what `write` said of `path`, where it can be written nowhere: nothing that was given is wrong.
    """
    from ...engine.imaging.files import ImageError

    problem: Exception
    try:
        if pipe is None:
            write(path)
        else:
            pipe()
        return path, None
    except ImageError as error:
        problem = error
    except OSError as error:
        reason = error.strerror or error
        problem = error if pipe is None else ImageError(f"cannot write the picture to standard output: {reason}")
    for place in (_in_current_folder, _in_temporary_folder, _in_home):
        with suppress(ImageError, OSError, RuntimeError):  # RuntimeError: no home
            other = place(path.name)
            try:
                write(other)
                return other, problem
            finally:
                if place is _in_temporary_folder:
                    _remove_if_empty(other.parent)
    raise OSError(str(problem)) from problem


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def _in_current_folder(name: str) -> Path:
    return _unused(Path(os.path.abspath(name)))


def _in_temporary_folder(name: str) -> Path:
    import tempfile

    return Path(tempfile.mkdtemp(prefix="nstgpu-")) / name  # nobody else may write there, or lay a link


def _in_home(name: str) -> Path:
    return _unused(Path.home() / name)


def _unused(path: Path) -> Path:
    names = (path.with_name(f"{path.stem} ({number}){path.suffix}") for number in count(2))
    return path if not os.path.lexists(path) else next(name for name in names if not os.path.lexists(name))
