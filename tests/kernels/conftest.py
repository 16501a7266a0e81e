"""Devices on which a kernel is tested: the emulator, its checking build, and a GPU where there is one."""

import warnings
from collections.abc import Callable

import pytest

from nstgpu.kernels.cuda.device import CudaDevice
from nstgpu.kernels.cuda.runtime import cupy_runtime, emulator_runtime, nvrtc
from nstgpu.kernels.cuda.runtime.cupy_runtime import CudaRuntime
from nstgpu.kernels.cuda.runtime.driver import cuda_problem
from nstgpu.kernels.cuda.runtime.emulator_runtime import EmulatorRuntime
from nstgpu.kernels.cuda.runtime.protocol import Runtime
from nstgpu.kernels.emulator import NoCompilerError
from nstgpu.kernels.errors import DeviceError

Runtimes = Callable[..., Runtime]


@pytest.fixture(scope="session")
def runtime_called() -> Runtimes:
    """runtime_called("emulator", "checked" or "cuda", seed=0) skips what is not here, loudly for want of a compiler."""

    def call(name: str, seed: int = 0) -> Runtime:
        if name == "cuda":
            if problem := cuda_problem():
                pytest.skip(problem)
            return CudaRuntime()
        try:
            return EmulatorRuntime(check=name == "checked", seed=seed)
        except DeviceError as error:
            if not isinstance(error.__cause__, NoCompilerError):
                raise
            warnings.warn(f"NO EMULATOR TESTS: {error}", stacklevel=1)
            pytest.skip(str(error))

    return call


@pytest.fixture(scope="session")
def hopper_called(runtime_called: Runtimes) -> Runtimes:
    """As `runtime_called`, with the Hopper kernels for 16 bits and no more; skips a GPU of another kind too."""
    return _with_sources(runtime_called, "instantiations/sm90_bf16.cu", "instantiations/sm90_fp16.cu", "gram/simt.cu")


@pytest.fixture(scope="session")
def hopper_fp32_called(runtime_called: Runtimes) -> Runtimes:
    """Likewise, with those for float32 activations."""
    return _with_sources(runtime_called, "instantiations/sm90_fp32.cu", "instantiations/sm80_tf32.cu")


def _with_sources(runtime_called: Runtimes, *names: str) -> Runtimes:
    sources = tuple(nvrtc.FOLDER / name for name in names)

    def call(name: str, seed: int = 0) -> Runtime:
        with pytest.MonkeyPatch.context() as patch:
            for module in (cupy_runtime, emulator_runtime):
                patch.setattr(module, "sources_for", lambda _: sources)
            runtime = runtime_called(name, seed)
        if isinstance(runtime, CudaRuntime) and runtime.architecture != "sm_90a":
            pytest.skip(f"the GPU is {runtime.architecture}, not sm_90a")
        return runtime

    return call


@pytest.fixture(scope="module", params=["emulator", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest, runtime_called: Runtimes) -> CudaDevice:
    return CudaDevice(runtime_called(request.param))


@pytest.fixture(scope="module")
def checked(runtime_called: Runtimes) -> CudaDevice:
    return CudaDevice(runtime_called("checked"))


@pytest.fixture(scope="module", params=["emulator", pytest.param("cuda", marks=pytest.mark.gpu)])
def on_hopper(request: pytest.FixtureRequest, hopper_called: Runtimes) -> Runtime:
    return hopper_called(request.param)


@pytest.fixture(scope="module", params=["emulator", pytest.param("cuda", marks=pytest.mark.gpu)])
def on_hopper_fp32(request: pytest.FixtureRequest, hopper_fp32_called: Runtimes) -> Runtime:
    return hopper_fp32_called(request.param)
