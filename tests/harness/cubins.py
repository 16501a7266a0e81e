"""What the compiler made of a kernel, as its instructions show."""

import struct
from collections import Counter
from collections.abc import Mapping


def words(image: bytes) -> dict[str, list[int]]:
    """The first half of each kernel's instructions: its section of the ELF file is 16 bytes an instruction."""
    (start,) = struct.unpack_from("<Q", image, 0x28)
    size, count, names_at = struct.unpack_from("<HHH", image, 0x3A)
    sections = [struct.unpack_from("<IIQQQQ", image, start + i * size) for i in range(count)]
    names = sections[names_at][4]
    found = {}
    for name_at, _, _, _, offset, length in sections:
        name = image[names + name_at : image.index(b"\0", names + name_at)].decode()
        if name.startswith(".text."):
            first = [struct.unpack_from("<Q", image, at)[0] for at in range(offset, offset + length, 16)]
            found[name.removeprefix(".text.")] = first
    return found


def instructions(image: bytes, opcodes: Mapping[int, str]) -> dict[str, Counter[str]]:
    """How often each kernel has those of `opcodes`: the lower twelve bits of an instruction name it."""
    return {
        name: Counter(opcodes[word & 0xFFF] for word in first if word & 0xFFF in opcodes)
        for name, first in words(image).items()
    }
