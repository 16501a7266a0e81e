"""Everything that computes: the seam (`device`), the NumPy reference, and the fast devices tested against it."""

from .device import Device
from .errors import DeviceError, OutOfMemoryError
from .open import DEVICES, open_device, open_devices

__all__ = ["DEVICES", "Device", "DeviceError", "OutOfMemoryError", "open_device", "open_devices"]
