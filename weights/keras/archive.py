"""The `.keras` archive: its HDF5 member and its model configuration, taken out under limits.

What a member declares is held to a limit before it is unpacked, and what it unpacks to is held to what it
declares.
"""

import json
import os
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import WeightsError

SIGNATURE = b"PK\x03\x04"
WEIGHTS = "model.weights.h5"
CONFIG = "config.json"
MAX_WEIGHTS_BYTES = 2 * 1024**3
"""VGG-19 with its dense layers and Adam's two moments is 1.7 GB."""
MAX_CONFIG_BYTES = 8 * 1024**2
MAX_RATIO = 100
"""Of unpacked to packed size. Weights hardly shrink at all; a bomb shrinks a thousandfold."""
RATIO_FREE_BYTES = 16 * 1024**2
"""Small files may shrink as they like: in a tiny model HDF5's own padding dominates."""
PIECE = 1024**2


@contextmanager
def unpacked(path: Path) -> Iterator[tuple[BinaryIO, Any]]:
    """The archive's HDF5 weights as a temporary file, and its model configuration (parsed JSON, or None)."""
    with zipfile.ZipFile(path) as archive, tempfile.TemporaryFile() as weights:
        members = {member.filename: member for member in archive.infolist()}
        if WEIGHTS not in members:
            raise WeightsError(f"a zip archive with no {WEIGHTS} inside; use a .keras or HDF5 weights file")
        for piece in _pieces(archive, members[WEIGHTS], MAX_WEIGHTS_BYTES):
            weights.write(piece)
        weights.seek(0)
        config = None
        if CONFIG in members:
            config = json.loads(b"".join(_pieces(archive, members[CONFIG], MAX_CONFIG_BYTES)))
        yield weights, config


def _pieces(archive: zipfile.ZipFile, member: zipfile.ZipInfo, limit: int) -> Iterator[bytes]:
    """A member's content; `WeightsError` before the first byte if there would be too many."""
    # An entry may claim any packed size, but no more than the whole archive can be behind it.
    assert archive.fp is not None
    packed = min(member.compress_size, archive.fp.seek(0, os.SEEK_END))
    limit = min(limit, max(RATIO_FREE_BYTES, MAX_RATIO * packed))
    if member.file_size > limit:
        raise WeightsError(
            f"its member {member.filename!r} unpacks from {packed:,} to {member.file_size:,} bytes, "
            f"over the limit of {limit:,}: a zip bomb, or no weights; do not use it"
        )
    with archive.open(member) as stream:
        # Unpacks no more than the declared size, whatever the stream goes on to hold.
        while piece := stream.read(PIECE):
            yield piece
