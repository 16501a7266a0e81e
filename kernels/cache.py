"""Compiled kernels on disk, so that each is compiled once on a machine: where they lie, and how an entry gets there.

What is compiled, and what a key must name, is the compilers' business.
"""

import hashlib
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path


def cache_directory(kind: str) -> Path:
    """The directory for one kind of entries: in $NSTGPU_CACHE_DIR, or where the platform keeps caches."""
    if chosen := os.environ.get("NSTGPU_CACHE_DIR"):
        base = Path(chosen)
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "nstgpu" / "cache"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches" / "nstgpu"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nstgpu"
    directory = base / kind
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


def cached(directory: Path, key: str, suffix: str, produce: Callable[[Path], None]) -> Path:
    """The file that `produce` makes for this key.

    Its name carries the digest of its bytes, and one that doesn't match is made anew; it appears under that name when
    it is complete, so that processes may share the directory.
    """
    for entry in directory.glob(f"{key}-*{suffix}"):
        if entry.name == f"{key}-{digest(entry.read_bytes())}{suffix}":
            return entry
        entry.unlink(missing_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=directory, suffix=f".new{suffix}")
    os.close(descriptor)
    try:
        produce(Path(temporary))
        entry = directory / f"{key}-{digest(Path(temporary).read_bytes())}{suffix}"
        os.replace(temporary, entry)
    finally:
        Path(temporary).unlink(missing_ok=True)
    return entry
