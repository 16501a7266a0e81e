"""Devices on which a kernel is tested: the emulator, its checking build, and a GPU where there is one."""

import warnings
from collections.abc import Callable

import pytest

from nstgpu.kernels.device import DeviceError
from nstgpu.kernels.emulator import NoCompilerError
from nstgpu.kernels.gpu import Gpu
from nstgpu.kernels.runtimes import CudaRuntime, EmulatorRuntime, Runtime, cuda_problem

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


@pytest.fixture(scope="module", params=["emulator", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest, runtime_called: Runtimes) -> Gpu:
    return Gpu(runtime_called(request.param))


@pytest.fixture(scope="module")
def checked(runtime_called: Runtimes) -> Gpu:
    return Gpu(runtime_called("checked"))
