"""What a runtime is: memory, copies and launches, on a GPU or in the emulator.

A runtime holds the compiled kernels, hands out memory, moves arrays in and out and launches; which kernel with which
arguments is decided elsewhere.
"""

from collections.abc import Callable
from typing import Any, Protocol

from numpy.typing import NDArray

from ...device import A, Stream
from ..gpu_spec import GpuSpec
from .launch import Launch


class Runtime(Stream[A], Protocol[A]):
    """Memory and launches, in order; nothing waits but `download`."""

    name: str
    measurable: bool
    """Whether times mean anything."""
    spec: GpuSpec
    """What the choice of tiles for tensor cores goes by."""

    def allocate(self, nbytes: int) -> A:
        """Uninitialised memory as uint8, on a 256-byte boundary."""

    def upload(self, values: NDArray[Any], out: A) -> None:
        """out := values, C-contiguous and of out's dtype."""

    def download(self, values: A) -> NDArray[Any]:
        """A copy in host memory, once all that was launched is done."""

    def free_bytes(self) -> int | None:
        """What could still be allocated; None where only the host's memory limits it."""

    def address(self, array: A) -> int:
        """Where an array starts; raises ValueError for one that is not in this runtime's memory."""

    def launch(self, launch: Launch) -> None:
        """Raises DeviceError naming the kernel."""

    def elapsed(self, work: Callable[[], object]) -> float:
        """Seconds that what `work` launches takes."""

    def roofline(self, precision: str) -> tuple[float, float] | None:
        """FLOP/s in a precision and bytes/s of memory, at best; None where they mean nothing."""
