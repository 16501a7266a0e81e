"""One launch of a CUDA kernel as plain values: what the launchers of this package return and a runtime carries out."""

from typing import NamedTuple


class Launch(NamedTuple):
    """A kernel by name, its grid and block as (x, y, z), and its arguments in order.

    An argument is an array of the device, None for a null pointer, a NumPy scalar of the parameter's exact type, or an
    array of one structured element, passed by value.
    """

    kernel: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    args: tuple[object, ...]
    shared_bytes: int = 0
    reached: tuple[object, ...] = ()
    """Arrays of the device whose addresses are in a structured element: the emulator's checking build asks for them."""
