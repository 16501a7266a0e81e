"""Arrays in a device's memory, and emulators of a test's own making."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nstgpu.kernels.cuda.device import CudaDevice
from nstgpu.kernels.cuda.gpu_spec import GpuSpec
from nstgpu.kernels.cuda.runtime.emulator_runtime import EmulatorRuntime
from nstgpu.kernels.cuda.runtime.launch import Launch
from nstgpu.kernels.cuda.runtime.protocol import Runtime
from nstgpu.kernels.cuda.storage import MEMORY, rounded, widened
from nstgpu.kernels.emulator import KernelFault, Library, NoCompilerError, Report, compile_library


def empty(on: CudaDevice | Runtime, shape: tuple[int, ...], dtype: Any = np.float32) -> Any:
    """Filled with what nobody would compute, so that what is left out shows."""
    nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    room = on.allocate(nbytes)
    on.upload(np.full(nbytes, 0xEE, np.uint8), room)
    return room.view(dtype).reshape(shape)


def held(on: CudaDevice | Runtime, values: Any, dtype: Any = None) -> Any:
    """The values in the device's memory, in the dtype that they have on the host if none is named."""
    out = empty(on, values.shape, values.dtype if dtype is None else dtype)
    on.upload(np.ascontiguousarray(values), out)
    return out


def in_memory(values: Any, precision: str) -> Any:
    """As activations of a precision are kept."""
    return values if MEMORY[precision] == np.float32 else rounded(values, precision)


def compiled(*sources: Path, **options: Any) -> Library:
    """An emulator's library of these sources; skips, loudly, for want of a compiler."""
    try:
        return compile_library(list(sources), **options)
    except NoCompilerError as error:
        warnings.warn(f"NO EMULATOR TESTS: {error}", stacklevel=2)
        pytest.skip(str(error))


def faults(library: Library, kernel: str, grid: int, block: int, args: list[Any], **more: Any) -> tuple[Report, ...]:
    """What the checking build reports of a broken kernel."""
    with pytest.raises(KernelFault, match=kernel) as caught:
        library.launch(kernel, grid, block, args, **more)
    reports: tuple[Report, ...] = caught.value.reports
    assert all(report.kernel == kernel for report in reports)
    return reports


class OfLibrary(EmulatorRuntime):
    """The emulator with another library than that of all sources."""

    def __init__(self, library: Library) -> None:
        self._library = library


class Bench:
    """A runtime, a precision, a GPU that tiles are chosen for, and a note of every kernel that was launched."""

    def __init__(self, runtime: Runtime, precision: str, spec: GpuSpec) -> None:
        self.runtime, self.precision, self.spec = runtime, precision, spec
        self.launched: set[str] = set()

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        return empty(self.runtime, shape, dtype)

    def held(self, values: Any) -> Any:
        return held(self.runtime, values)

    def run(self, launches: list[Launch]) -> None:
        for launch in launches:
            self.launched.add(launch.kernel)
            self.runtime.launch(launch)

    def fetched(self, values: Any) -> Any:
        """In float32, if they are numbers of the precision."""
        host = self.runtime.download(values)
        return widened(host, self.precision) if host.dtype == MEMORY[self.precision] else host
