"""Reads what a pickle says without doing any of it: calls stay calls, names stay names, and nothing is imported.

A pickle is a program for a small machine; this one knows its operations but carries out none that reaches outside.
What a class or a function in it means is for the caller to know. Long strings stay in the file.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, BinaryIO, NamedTuple

from ..errors import WeightsError

MAX_OPERATIONS = 2_000_000
MAX_LINE = 4096
KEPT = 4096
"""Bytes; a longer string is left in the file."""


class Global(NamedTuple):
    """A class or function by its name; never looked up."""

    module: str
    name: str


class Persistent(NamedTuple):
    """What the program that wrote the pickle keeps elsewhere, by its identification."""

    identification: Any


class Span(NamedTuple):
    """A string that was left in the file."""

    offset: int
    length: int


@dataclass(eq=False)
class Call:
    """What calling `function` would have made, and what was then put into it."""

    function: Any
    arguments: Any
    state: Any = None
    items: dict[Any, Any] = field(default_factory=dict)
    elements: list[Any] = field(default_factory=list)


_MARK = object()
_INTEGERS = {b"J": "<i", b"K": "<B", b"M": "<H"}
_STRINGS = {  # how long a string's length is, and whether it is text
    b"T": ("<I", False),
    b"U": ("<B", False),
    b"B": ("<I", False),
    b"C": ("<B", False),
    b"\x8e": ("<Q", False),
    b"\x96": ("<Q", False),
    b"X": ("<I", True),
    b"\x8c": ("<B", True),
    b"\x8d": ("<Q", True),
}
_CONSTANTS: dict[bytes, Callable[[], Any]] = {
    b"N": lambda: None,
    b"\x88": lambda: True,
    b"\x89": lambda: False,
    b"]": list,
    b")": tuple,
    b"}": dict,
    b"\x8f": list,  # a set
    b"(": lambda: _MARK,
}
_MEMO_READS = {b"h": "<B", b"j": "<I"}
_MEMO_WRITES = {b"q": "<B", b"r": "<I"}
_TUPLES = {b"\x85": 1, b"\x86": 2, b"\x87": 3}


def read_pickle(stream: BinaryIO) -> Any:
    """The one value that is pickled at the stream's position, which is left behind it.

    Of dicts, only items with plain keys are kept. Raises `WeightsError` for anything that is no pickle.
    """
    try:
        return _Machine(stream).run()
    except (IndexError, KeyError, ValueError, TypeError, AttributeError, struct.error) as error:
        if isinstance(error, WeightsError):
            raise
        raise WeightsError("a pickle that is damaged or cut short; fetch it again") from error


class _Machine:
    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        for _ in range(MAX_OPERATIONS):
            operation = self.stream.read(1)
            if operation == b".":
                return self.stack.pop()
            self._do(operation)
        raise WeightsError("a pickle far longer than any network's; it is no weights file")

    def _do(self, operation: bytes) -> None:
        stack = self.stack
        if operation in _CONSTANTS:
            stack.append(_CONSTANTS[operation]())
        elif operation in _INTEGERS:
            stack.append(self._unpacked(_INTEGERS[operation]))
        elif operation in _STRINGS:
            layout, is_text = _STRINGS[operation]
            stack.append(self._string(self._unpacked(layout), is_text))
        elif operation in _MEMO_READS:
            stack.append(self.memo[self._unpacked(_MEMO_READS[operation])])
        elif operation in _MEMO_WRITES:
            self.memo[self._unpacked(_MEMO_WRITES[operation])] = stack[-1]
        elif operation in _TUPLES:
            count = _TUPLES[operation]
            held = tuple(stack[-count:])
            if len(held) < count:
                raise IndexError
            stack[-count:] = [held]
        else:
            self._do_rare(operation)

    def _do_rare(self, operation: bytes) -> None:
        stack = self.stack
        match operation:
            case b"\x80":
                self._exactly(1)  # the protocol
            case b"\x95":
                self._exactly(8)  # how long the next operations are together
            case b"\x94":
                self.memo[len(self.memo)] = stack[-1]
            case b"p":
                self.memo[int(self._line())] = stack[-1]
            case b"g":
                stack.append(self.memo[int(self._line())])
            case b"I":
                text = self._line()
                stack.append({"00": False, "01": True}.get(text) if text in ("00", "01") else int(text))
            case b"L":
                stack.append(int(self._line().rstrip("L")))
            case b"F":
                stack.append(float(self._line()))
            case b"G":
                stack.append(self._unpacked(">d"))
            case b"S" | b"V":
                stack.append(self._line().strip("'\""))
            case b"\x8a" | b"\x8b":
                length = self._unpacked("<B" if operation == b"\x8a" else "<I")
                stack.append(int.from_bytes(self._exactly(min(length, 64)), "little", signed=True))
            case b"0":
                stack.pop()
            case b"1":
                self._since_mark()
            case b"2":
                stack.append(stack[-1])
            case b"t":
                stack.append(tuple(self._since_mark()))
            case b"l" | b"\x91":
                stack.append(self._since_mark())
            case b"d":
                stack.append(_paired(self._since_mark()))
            case b"a" | b"e" | b"\x90":
                added = [stack.pop()] if operation == b"a" else self._since_mark()
                target = stack[-1]
                (target.elements if isinstance(target, Call) else target).extend(added)
            case b"s" | b"u":
                pairs = self._popped(2) if operation == b"s" else self._since_mark()
                target = stack[-1]
                (target.items if isinstance(target, Call) else target).update(_paired(pairs))
            case _:
                self._do_call(operation)

    def _do_call(self, operation: bytes) -> None:
        """What would reach outside: noted, not done."""
        stack = self.stack
        match operation:
            case b"c":
                stack.append(Global(self._line(), self._line()))
            case b"\x93":
                stack.append(Global(*map(str, self._popped(2))))
            case b"R" | b"\x81":
                stack.append(Call(*self._popped(2)))
            case b"\x92":
                function, arguments, _ = self._popped(3)
                stack.append(Call(function, arguments))
            case b"i":
                function = Global(self._line(), self._line())
                stack.append(Call(function, tuple(self._since_mark())))
            case b"o":
                function, *rest = self._since_mark()
                stack.append(Call(function, tuple(rest)))
            case b"b":
                state = stack.pop()
                if isinstance(stack[-1], Call):
                    stack[-1].state = state
            case b"P":
                stack.append(Persistent(self._line()))
            case b"Q":
                stack.append(Persistent(stack.pop()))
            case _:
                raise ValueError(operation)

    def _popped(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise IndexError
        held = self.stack[-count:]
        del self.stack[-count:]
        return held

    def _since_mark(self) -> list[Any]:
        at = len(self.stack) - 1
        while self.stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise IndexError
        held = self.stack[at + 1 :]
        del self.stack[at:]
        return held

    def _exactly(self, length: int) -> bytes:
        data = self.stream.read(length)
        if len(data) != length:
            raise ValueError
        return data

    def _unpacked(self, layout: str) -> Any:
        return struct.unpack(layout, self._exactly(struct.calcsize(layout)))[0]

    def _line(self) -> str:
        line = self.stream.readline(MAX_LINE)
        if not line.endswith(b"\n"):
            raise ValueError
        return line[:-1].decode("utf-8", "replace")

    def _string(self, length: int, is_text: bool) -> str | bytes | Span:
        if length > KEPT:
            here = self.stream.tell()
            if here + length > self.stream.seek(0, 2):
                raise ValueError
            self.stream.seek(here + length)
            return Span(here, length)
        data = self._exactly(length)
        return data.decode("utf-8", "replace") if is_text else data


def _paired(values: list[Any]) -> dict[Any, Any]:
    pairs = zip(values[::2], values[1::2], strict=True)
    return {_plain(key): value for key, value in pairs if isinstance(key, str | bytes | int | float | None)}


def _plain(key: Any) -> Any:
    return key.decode("latin1") if isinstance(key, bytes) else key


def text_of(value: Any) -> str | None:
    """A string's text, however old the pickle; None for what is no string."""
    return value if isinstance(value, str) else value.decode("latin1") if isinstance(value, bytes) else None


def entries(value: Any) -> dict[Any, Any] | None:
    """What a dict or an OrderedDict holds; None for anything else."""
    if isinstance(value, dict):
        return value
    if isinstance(value, Call) and value.function == Global("collections", "OrderedDict"):
        held = value.arguments[0] if isinstance(value.arguments, tuple) and value.arguments else []
        pairs = [tuple(pair) for pair in held if isinstance(pair, list | tuple) and len(pair) == 2]
        return _paired([part for pair in pairs for part in pair]) | value.items
    return None
