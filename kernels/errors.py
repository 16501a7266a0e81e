"""What goes wrong with devices, and with arrays that are given to a kernel."""


class DeviceError(RuntimeError):
    """The device asked for cannot be used here; the message is one line: why, and what to do."""


class OutOfMemoryError(DeviceError, MemoryError):
    """The device has no memory left."""


class ArrayError(ValueError):
    """A function of `nstgpu.kernels` cannot take what it was given; the message is one line: which, why, what to do."""
