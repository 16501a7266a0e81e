"""In which order a group's members were written: HDF5 lists them by name, but keeps their names in a heap as they came.

Keras 3 writes a model's layers in the model's order, and says it nowhere else in a file of weights alone.
"""

from collections.abc import Collection
from pathlib import Path

import h5py

MAX_HEAP = 1024**2
MAX_MESSAGES = 64 * 1024
_SYMBOL_TABLE = 0x11
_UNDEFINED = 2**64 - 1


def written_order(group: h5py.Group) -> list[str] | None:
    """The members' names in the order in which they were written, or None where the file does not keep it.

    Only groups as HDF5 writes them unless told otherwise keep it, and only until a member is removed.
    """
    path = Path(group.file.filename)
    if not path.is_file():  # inside an archive
        return None
    with path.open("rb") as stream:

        def read(at: int, length: int) -> bytes:
            if at + length > 2**62:
                return b""
            stream.seek(at)
            return stream.read(length)

        address = h5py.h5o.get_info(group.id).addr
        head = read(address, 16)
        if len(head) < 16 or head[0] != 1:
            return None
        messages = read(address + 16, min(int.from_bytes(head[8:12], "little"), MAX_MESSAGES))
        heap = _heap_in(messages)
        if heap is None:
            return None
        described = read(heap, 32)
        if described[:5] != b"HEAP\0":
            return None
        size, data = (int.from_bytes(described[at : at + 8], "little") for at in (8, 24))
        return _names_in(read(data, size), set(group)) if size <= MAX_HEAP else None


def _heap_in(messages: bytes) -> int | None:
    """The address of the heap of names, out of an object header's messages."""
    at = 0
    while at + 8 <= len(messages):
        kind, size = (int.from_bytes(messages[at + k : at + k + 2], "little") for k in (0, 2))
        if kind == _SYMBOL_TABLE and at + 24 <= len(messages):
            address = int.from_bytes(messages[at + 16 : at + 24], "little")
            return None if address == _UNDEFINED else address
        at += 8 + size
    return None


def _names_in(heap: bytes, members: Collection[str]) -> list[str] | None:
    """Each member's name once, as they follow each other in the heap, every one at a multiple of 8 bytes."""
    found: list[str] = []
    at = 8  # behind the empty name
    while at < len(heap) and len(found) < len(members):
        end = heap.find(b"\0", at)
        if end < 0:
            return None
        found.append(heap[at:end].decode("utf-8", "replace"))
        at = end + 8 - end % 8
    return found if len(set(found)) == len(found) and set(found) == set(members) else None
