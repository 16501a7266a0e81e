"""Compiled kernels on disk, so that each is compiled once on a machine: where they lie, whom the folder may belong to,
how an entry gets there and how it goes.

What is compiled, and what a key must name, is the compilers' business. Entries are code that this process will run, so
they are read only from a folder that nobody but this user can write.
"""

import contextlib
import functools
import hashlib
import logging
import os
import re
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

KINDS = ("cubin", "emulator")
"""The folders of the cache: kernels for GPUs, and the emulator's libraries."""
UNUSED_DAYS = 30  # after which an entry goes, as those of older versions do
LIMIT_BYTES = 512 << 20  # of a kind; what was used longest ago goes first
DAY = 86400.0

MOST_SECONDS = 900.0
"""That a process waits for another one that makes the same entry."""

_flock: Any
try:
    import fcntl as _flock
except ImportError:  # Windows
    _flock = None

_OURS = re.compile(r"[0-9a-f]{32}-[0-9a-f]{32}\.(cubin|json|o|so)|tmp\w+\.new\.(cubin|json|o|so)")
_READ = os.O_RDONLY
for _flag in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"):  # as far as the system has them
    _READ |= getattr(os, _flag, 0)
_log = logging.getLogger("nstgpu")


class Entry(NamedTuple):
    """A file of the cache, and its bytes as they were verified: the file may be gone by now."""

    path: Path
    content: bytes


class Kept(NamedTuple):
    """What lies in one folder of the cache."""

    kind: str
    folder: Path
    files: int
    bytes: int


# ---- where ----------------------------------------------------------------------------------------------------------
def cache_base() -> Path:
    """$NSTGPU_CACHE_DIR, or where the platform keeps caches; may not exist."""
    if chosen := os.environ.get("NSTGPU_CACHE_DIR"):
        return Path(os.path.expanduser(chosen)).absolute()

    import platformdirs

    return platformdirs.user_cache_path("nstgpu", appauthor=False)


def cache_directory(kind: str) -> Path:
    """The directory for one kind of entries, made if need be.

    Where it cannot be made, or others could write into it, a temporary one that ends with this process, and one line
    through the logger "nstgpu" says why.
    """
    directory = cache_base() / kind
    if problem := _make(directory) or problem_of(directory):
        _say_once(f"compiled kernels cannot be kept: {problem}")
        return temporary_directory(kind)
    return directory.resolve()


def cache_problem() -> str | None:
    """Why compiled kernels cannot be kept between runs, in one line that says what to do; None if they can."""
    for kind in KINDS:
        directory = cache_base() / kind
        if problem := _make(directory) or problem_of(directory):
            return problem
        try:
            with tempfile.NamedTemporaryFile(dir=directory):
                pass
        except OSError as error:
            return _cannot_write(directory, error)
    return None


def temporary_directory(kind: str) -> Path:
    """The directory for one kind of entries of this process alone, removed when it ends."""
    if not _temporary or not Path(_temporary[-1].name).is_dir():
        _temporary.append(tempfile.TemporaryDirectory(prefix="nstgpu-", ignore_cleanup_errors=True))
    directory = Path(_temporary[-1].name) / kind
    directory.mkdir(mode=0o700, exist_ok=True)
    return directory


_temporary: list[tempfile.TemporaryDirectory[str]] = []


@functools.cache
def _say_once(text: str) -> None:
    _log.warning("%s", text)


def _make(directory: Path) -> str | None:
    """Makes a folder, and those above it, for this user alone; what is amiss if that fails."""
    if not directory.is_absolute():
        return "this user has no home folder; set NSTGPU_CACHE_DIR to a folder of your own"
    try:
        for folder in (*reversed(directory.parents), directory):
            if not folder.is_dir():
                folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        return _cannot_write(directory, error)
    return None


def _cannot_write(directory: Path, error: OSError) -> str:
    return f"{directory} cannot be written ({error.strerror}); set NSTGPU_CACHE_DIR to a folder of your own"


# ---- whom it may belong to ------------------------------------------------------------------------------------------
def problem_of(directory: Path) -> str | None:
    """Why what lies in a folder is not to be trusted, with the remedy; None if only this user can put it there.

    As ssh looks at its keys: the folder and every one above it belong to this user or to root, and nobody else may
    write them. Folders such as /tmp, where each keeps to their own files, are fine above it. On Windows, where a user's
    folders are the user's own, nothing is looked at.
    """
    if not hasattr(os, "getuid"):
        return None
    real = directory.resolve()
    for folder in (real, *real.parents):
        try:
            found = folder.stat()
        except OSError as error:
            return f"{folder} cannot be looked at ({error.strerror}); set NSTGPU_CACHE_DIR to a folder of your own"
        mine = found.st_uid == os.geteuid()
        if not (mine or found.st_uid == 0 or (folder != real and _is_nobody_here(found.st_uid))):
            return f"{folder} belongs to another user; set NSTGPU_CACHE_DIR to a folder of your own"
        if _others_may_write(found) and not (folder != real and found.st_mode & stat.S_ISVTX):
            remedy = f"chmod go-w {folder}, or " if mine else ""
            return f"others may write {folder}; {remedy}set NSTGPU_CACHE_DIR to a folder of your own"
    return None


def _others_may_write(found: os.stat_result) -> bool:
    mode = found.st_mode
    return bool(mode & stat.S_IWOTH) or bool(mode & stat.S_IWGRP and not _is_a_group_of_one(found.st_gid))


@functools.cache
def _is_a_group_of_one(group: int) -> bool:
    """Whether it is this user's private group, which many systems give to each user, with a umask of 002."""
    import grp
    import pwd

    try:
        user, entry = pwd.getpwuid(os.geteuid()), grp.getgrgid(group)
    except KeyError:
        return False
    return user.pw_gid == group and entry.gr_name == user.pw_name and set(entry.gr_mem) <= {user.pw_name}


@functools.cache
def _is_nobody_here(owner: int) -> bool:
    """Whether an owner stands for users that do not exist in this container, whose root folders are theirs."""
    try:
        nobody = int(Path("/proc/sys/kernel/overflowuid").read_text())
        ranges = [tuple(map(int, line.split())) for line in Path("/proc/self/uid_map").read_text().splitlines()]
    except (OSError, ValueError):
        return False
    return owner == nobody and not any(first <= owner < first + count for first, _, count in ranges)


# ---- what is in it --------------------------------------------------------------------------------------------------
def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


def cached(directory: Path, key: str, suffix: str, produce: Callable[[Path], object]) -> Entry:
    """The file that `produce` makes for this key, which is 32 hexadecimal digits.

    Its name carries the digest of its bytes, and one that doesn't match is made anew; it appears under that name when
    it is complete, so that processes may share the directory, empty it and damage it meanwhile. Of those that miss it
    at the same time one makes it, and the others wait. What cannot be kept there lies in a temporary directory of this
    process, which is said once.
    """
    if found := _found(directory, key, suffix):
        return found
    with _alone(directory / f"tmp{key}.new{suffix}"):
        return _found(directory, key, suffix) or _made(directory, key, suffix, produce)


def _found(directory: Path, key: str, suffix: str) -> Entry | None:
    for path in _listed(directory, f"{key}-*{suffix}"):
        content = _read(path)
        if content is not None and _is_whole(path, content):
            _mark_used(path)
            return Entry(path, content)
    return None


def _made(directory: Path, key: str, suffix: str, produce: Callable[[Path], object]) -> Entry:
    made = _unique(temporary_directory(directory.name), suffix)
    try:
        produce(made)
        content = made.read_bytes()
    except BaseException:
        made.unlink(missing_ok=True)
        raise
    target = directory / f"{key}-{digest(content)}{suffix}"
    try:
        arriving = _unique(directory, suffix)
        try:
            arriving.write_bytes(content)
            os.replace(arriving, target)
        finally:
            with contextlib.suppress(OSError):
                arriving.unlink()
    except OSError as error:
        in_the_way = f"{target} is a folder; remove it" if target.is_dir() else _cannot_write(directory, error)
        _say_once(f"compiled kernels cannot be kept: {in_the_way}")
        return Entry(made, content)
    made.unlink(missing_ok=True)
    for path in _listed(directory, f"{key}-*{suffix}"):
        # Looked at again, since another process may have made it whole by now.
        if (other := _read(path)) is not None and not _is_whole(path, other):
            with contextlib.suppress(OSError):
                path.unlink()
    prune(directory)
    return Entry(target, content)


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Holds the lock with this name, whose file goes with it. Where there are no locks, or one is held for longer than
    any compiler takes, everybody goes on: nothing but time is lost."""
    until = time.monotonic() + MOST_SECONDS
    held = None
    while _flock is not None and held is None and time.monotonic() < until:
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_RDWR | _READ, 0o600)
        except OSError:
            break
        try:
            _flock.flock(descriptor, _flock.LOCK_EX | _flock.LOCK_NB)
            if _is_at(path, descriptor):  # and not one that its holder has removed meanwhile
                held = descriptor
        except BlockingIOError:
            time.sleep(0.05)
        except OSError:
            break
        finally:
            if held is None:
                os.close(descriptor)
    try:
        yield
    finally:
        if held is not None:
            with contextlib.suppress(OSError):
                if _is_at(path, held):
                    path.unlink()
            os.close(held)


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether an open file is the one of that name."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _is_whole(path: Path, content: bytes) -> bool:
    return path.stem.rpartition("-")[2] == digest(content)


def _unique(directory: Path, suffix: str) -> Path:
    """A new, empty file that nobody else may read or write."""
    descriptor, path = tempfile.mkstemp(dir=directory, suffix=f".new{suffix}")
    os.close(descriptor)
    return Path(path)


def _listed(directory: Path, pattern: str = "*") -> list[Path]:
    """The files of a folder, as far as it can be listed."""
    try:
        return sorted(directory.glob(pattern))
    except OSError:
        return []


def _read(path: Path) -> bytes | None:
    """The bytes of a file that is this user's alone; None where it is not, or is gone, or no file."""
    try:
        descriptor = os.open(path, _READ)
        with open(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                return None
            if hasattr(os, "getuid") and (found.st_uid != os.geteuid() or _others_may_write(found)):
                return None
            return file.read()
    except OSError:
        return None


def _mark_used(path: Path) -> None:
    """At most once a day, for `prune`."""
    with contextlib.suppress(OSError):
        if time.time() - path.stat().st_mtime > DAY:
            os.utime(path)


def prune(directory: Path) -> None:
    """Removes what nobody has used for long, and what is over the limit."""
    total = 0
    for path, found in sorted(_ours(directory), key=lambda item: item[1].st_mtime, reverse=True):
        total += found.st_size
        idle = time.time() - found.st_mtime
        if idle > UNUSED_DAYS * DAY or (idle > DAY and (total > LIMIT_BYTES or ".new" in path.name)):
            with contextlib.suppress(OSError):
                path.unlink()


def kept() -> list[Kept]:
    """What the cache holds, kind by kind."""
    return [
        Kept(kind, folder, len(entries), sum(found.st_size for _, found in entries))
        for kind in KINDS
        for folder in [cache_base() / kind]
        for entries in [list(_ours(folder))]
    ]


def clear() -> list[Kept]:
    """Removes every entry; returns what was removed. Raises OSError where a file cannot be removed.

    Nothing goes but files that are named as entries are, and lie in the cache's own folders; no link is followed from
    there.
    """
    removed = []
    for kind in KINDS:
        folder = cache_base() / kind
        entries = list(_ours(folder))
        for path, _ in entries:
            path.unlink(missing_ok=True)
        removed.append(Kept(kind, folder, len(entries), sum(found.st_size for _, found in entries)))
    return removed


def _ours(directory: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """The files of the cache in one of its folders, neither links nor folders."""
    for path in _listed(directory):
        with contextlib.suppress(OSError):
            found = path.lstat()
            if stat.S_ISREG(found.st_mode) and _OURS.fullmatch(path.name):
                yield path, found
