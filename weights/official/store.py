"""The folder on this machine where fetched weights lie: what is in it, what gets into it, and the default that follows.

Only what was verified, by the file's MD5 or layer by layer, gets its name there. Talking to servers is left to
`download`.
"""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..errors import WeightsError
from ..model import MATCONVNET, Convolution
from . import catalogue
from .catalogue import OfficialFile, has_layers_of, md5_of, official_named

if TYPE_CHECKING:
    from ..reader import StoredWeights

PREFERRED = "vgg19"
BUNDLED = "mini"
BUNDLED_FILE = Path(__file__).parents[1] / "mini.h5"


@dataclass(frozen=True)
class KnownWeights:
    """A name that `load_weights` knows, and whether its file is on this machine."""

    name: str
    model: str
    size: int
    """Bytes: of the file here, or of the official one."""
    cached: bool
    """Fetched, or bundled."""
    path: str
    """Where the file is, or belongs."""
    url: str
    """Empty for the bundled file."""
    licence: str
    default: bool
    """Whether it is what the command line takes when nothing is asked for."""


class Fetched(NamedTuple):
    """Where a file is now, and whether it was there, verified, all along."""

    path: Path
    was_there: bool


def weights_folder() -> Path:
    """$NSTGPU_WEIGHTS_DIR, else `weights` in $NSTGPU_CACHE_DIR or where the platform keeps caches; may not exist."""
    if chosen := os.environ.get("NSTGPU_WEIGHTS_DIR"):
        return Path(chosen)
    if cache := os.environ.get("NSTGPU_CACHE_DIR"):
        return Path(cache) / "weights"

    import platformdirs

    return platformdirs.user_cache_path("nstgpu", appauthor=False) / "weights"


def default_weights() -> str:
    """What to load when nothing is asked for: "vgg19" once it was fetched, else the bundled "mini"."""
    preferred = official_named(PREFERRED)
    return PREFERRED if preferred and _is_there(_place(preferred)) else BUNDLED


def known_weights() -> list[KnownWeights]:
    """The bundled network, and every one that can be fetched."""
    default = default_weights()
    size = BUNDLED_FILE.stat().st_size
    bundled = (size, True, str(BUNDLED_FILE), "", catalogue.LICENCE)
    known = [KnownWeights(BUNDLED, "thin VGG-19, blocks 1-3", *bundled, default == BUNDLED)]
    for official in catalogue.OFFICIAL_FILES:
        path = _place(official)
        cached = _is_there(path)
        known.append(
            KnownWeights(
                name=official.name,
                model=official.model,
                size=path.stat().st_size if cached else official.size,
                cached=cached,
                path=str(path),
                url=official.url,
                licence=catalogue.LICENCE,
                default=official.name == default,
            )
        )
    return known


def file_of(spec: str | Path) -> Path:
    """The file that `load_weights` reads: for "vgg19" or "vgg16" the fetched one, verified, for "mini" the bundled one,
    else the path `spec`.

    Raises `WeightsError`, with the command that fetches it, where such a file is not there.
    """
    if spec == BUNDLED:
        return BUNDLED_FILE
    official = official_named(spec)
    if official is None:
        return Path(spec)
    path = _place(official)
    command = f"nstgpu weights fetch {official.name}"
    if not _is_there(path):
        raise WeightsError(f"weights {official.name!r} are not on this machine; get them with {command}")
    if not _is_verified(official, path):
        raise WeightsError(f"{path}: damaged, or not the official {official.model}; get it again with {command}")
    return path


def fetch(
    name: str,
    *,
    on_progress: Callable[[int], None] = lambda _: None,
    on_retry: Callable[[str, float], None] = lambda *_: None,
) -> Fetched:
    """Downloads the official weights `name` ("vgg19", "vgg16") into the weights folder, unless they are there.

    The callbacks are as in `download.download`. Raises `WeightsError` for an unknown name and `download.DownloadError`
    for anything that goes wrong on the way.
    """
    from ..errors import DownloadError  # urllib and ssl are needed, and paid for, only here
    from .download import download

    official = _known(name)
    path = _place(official)
    if _is_verified(official, path):
        return Fetched(path, True)
    folder = _made(path.parent)
    try:
        with _alone_in(folder) as alone:
            if not alone:
                raise DownloadError(f"another process is fetching weights into {folder}; wait until it is done")
            download(official, path, on_progress=on_progress, on_retry=on_retry)
    except DownloadError:
        raise
    except OSError as error:  # the disk is full, or not ours
        raise DownloadError(f"{path}: cannot be written ({error.strerror or error})") from error
    return Fetched(path, False)


def take(name: str, source: Path) -> Fetched:
    """Puts a file that the user has into the weights folder as the official weights `name`, once it is verified.

    The official file is copied. Another that holds official VGG-19's convolutions, to the bit, is stored in the
    official layout, without whatever else it holds. Raises `WeightsError` for any other file.
    """
    from ..model import CAFFE
    from ..reader import read_weights_file
    from ..writer import write_canonical

    official = _known(name)
    path = _place(official)
    if _is_verified(official, path):
        return Fetched(path, True)
    if _has_size(source, official):
        part = _made(path.parent) / f"{path.name}.{os.getpid()}.part"
        try:
            shutil.copyfile(source, part)
            if md5_of(part) == official.md5:
                os.replace(part, path)
                return Fetched(path, False)
        finally:
            part.unlink(missing_ok=True)
    convolutions = _in_bgr(read_weights_file(source))
    if not has_layers_of(official, convolutions):
        raise WeightsError(
            f"{source}: not the official {official.model} ({official.size:,} bytes with MD5 {official.md5}); "
            f"to use it as it is, give it to --weights"
        )
    _made(path.parent)
    write_canonical(path, convolutions, CAFFE)
    return Fetched(path, False)


def fetched_files() -> list[Path]:
    """The official files that lie in the weights folder, and what broken downloads of them left; no links."""
    names = [official.file_name for official in catalogue.OFFICIAL_FILES]
    try:
        listed = sorted(weights_folder().iterdir())
    except OSError:
        return []
    ours = (path for path in listed if any(path.name in (name, f"{name}.part") for name in names))
    return [path for path in ours if path.is_file() and not path.is_symlink()]


def remove_fetched() -> tuple[int, int]:
    """Removes the `fetched_files`; returns how many, and their bytes. Raises `WeightsError` while some are fetched."""
    files = fetched_files()
    if not files:
        return 0, 0
    with _alone_in(weights_folder()) as alone:
        if not alone:
            raise WeightsError(f"another process is fetching weights into {weights_folder()}; wait until it is done")
        size = sum(path.stat().st_size for path in files)
        for path in files:
            path.unlink(missing_ok=True)
    return len(files), size


def _in_bgr(stored: "StoredWeights") -> tuple[Convolution, ...]:
    """The convolutions as the official files have them: the first takes BGR, in other programs' files perhaps RGB."""
    first, *rest = stored.convolutions
    if stored.preprocessing == MATCONVNET:
        kernel = np.ascontiguousarray(first.kernel[:, :, ::-1])
        kernel.setflags(write=False)
        first = replace(first, kernel=kernel)
    return (first, *rest)


def _known(name: str) -> OfficialFile:
    official = official_named(name)
    if official is None:
        names = ", ".join(known.name for known in catalogue.OFFICIAL_FILES)
        raise WeightsError(f"weights {name!r} are not known; fetch one of {names}")
    return official


def _place(official: OfficialFile) -> Path:
    return weights_folder() / official.file_name


def _is_there(path: Path) -> bool:
    """Also where the folder may not be entered, which `Path.is_file` raises for."""
    return os.path.isfile(path)


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            f"the folder {folder} cannot be made ({error.strerror}); set NSTGPU_WEIGHTS_DIR to one that can"
        ) from error
    return folder


def _has_size(path: Path, official: OfficialFile) -> bool:
    return path.is_file() and path.stat().st_size == official.size


def _is_verified(official: OfficialFile, path: Path) -> bool:
    if _has_size(path, official) and md5_of(path) == official.md5:
        return True
    if not path.is_file():
        return False
    from ..reader import read_weights_file

    try:
        return has_layers_of(official, read_weights_file(path).convolutions)
    except WeightsError:
        return False


@contextmanager
def _alone_in(folder: Path) -> Iterator[bool]:
    """Holds the folder's lock, if no other process does; the system gives it back, however this one ends."""
    with (folder / ".lock").open("wb") as stream:
        try:
            if sys.platform == "win32":
                import msvcrt

                msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)
            else:
                import fcntl

                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            yield False
            return
        except OSError:
            pass  # a file system without locks: the MD5 still tells when two have mixed their bytes
        yield True
