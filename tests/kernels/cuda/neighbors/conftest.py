"""Devices in each precision: on the emulator, on its checking build, and on a GPU where there is one."""

import pytest

from harness.neighbors import Opened
from nstgpu.kernels.cuda.device import CudaDevice
from nstgpu.kernels.cuda.runtime.cupy_runtime import CudaRuntime
from nstgpu.kernels.cuda.runtime.driver import cuda_problem
from nstgpu.kernels.cuda.runtime.emulator_runtime import EmulatorRuntime
from nstgpu.kernels.emulator import NoCompilerError
from nstgpu.kernels.errors import DeviceError


@pytest.fixture(scope="module", params=["emulator", "checked", pytest.param("cuda", marks=pytest.mark.gpu)])
def opened(request: pytest.FixtureRequest) -> Opened:
    """opened("bf16") is a device that computes so."""

    def call(precision: str) -> CudaDevice:
        if precision not in devices:
            devices[precision] = CudaDevice(runtime(precision), precision)
        return devices[precision]

    def runtime(precision: str) -> EmulatorRuntime | CudaRuntime:
        if request.param == "cuda":
            if problem := cuda_problem():
                pytest.skip(problem)
            return CudaRuntime(precision=precision)
        try:
            return EmulatorRuntime(precision, check=request.param == "checked")
        except DeviceError as error:
            if not isinstance(error.__cause__, NoCompilerError):
                raise
            pytest.skip(str(error))

    devices: dict[str, CudaDevice] = {}
    return call
