"""What a runtime is: memory, copies and launches, on a GPU or in the emulator.

A runtime holds the compiled kernels, hands out memory, moves arrays in and out and launches; which kernel with which
arguments is decided elsewhere.
"""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ...device import Array
from ..gpu_spec import GpuSpec
from .launch import Launch


class Runtime(Protocol):
    """Memory and launches, in order; nothing waits but `download`."""

    name: str
    spec: GpuSpec
    """What the choice of tiles for tensor cores goes by."""

    def allocate(self, nbytes: int) -> Array:
        """Uninitialised memory as uint8, on a 256-byte boundary."""

    def upload(self, values: NDArray[Any], out: Array) -> None:
        """out := values, C-contiguous and of out's dtype."""

    def download(self, values: Array) -> NDArray[Any]:
        """A copy in host memory, once all that was launched is done."""

    def free_bytes(self) -> int | None:
        """What could still be allocated; None where only the host's memory limits it."""

    def address(self, array: Array) -> int:
        """Where an array starts; raises ValueError for one that is not in this runtime's memory."""

    def launch(self, launch: Launch) -> None:
        """Raises DeviceError naming the kernel."""

    def capture(self, work: Callable[[], object]) -> Callable[[], None]:
        """What `work` launches, without launching it: returns a function that launches all of it at once."""

    def mark(self) -> Callable[[], None]:
        """Returns a function that waits for all that was launched until now."""

    def fetch(self, values: Array) -> Callable[[], NDArray[Any]]:
        """Copies values once what was launched until now is done, beside what is launched afterwards; returns a
        function that waits for the copy, in any thread."""

    def mailbox(self, nbytes: int) -> tuple[Array, NDArray[np.uint8]]:
        """Memory that kernels write and the host reads, as each of them sees it."""

    def elapsed(self, work: Callable[[], object]) -> float:
        """Seconds that what `work` launches takes."""

    def roofline(self, precision: str) -> tuple[float, float] | None:
        """FLOP/s in a precision and bytes/s of memory, at best; None where they mean nothing."""
