"""What goes wrong with devices."""


class DeviceError(RuntimeError):
    """The device asked for cannot be used here; the message is one line: why, and what to do."""


class OutOfMemoryError(DeviceError, MemoryError):
    """The device has no memory left."""
