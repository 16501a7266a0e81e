"""Everything that computes: the seam (`device`), the NumPy reference, and the fast devices tested against it."""

from .device import DEVICES, Device, DeviceError, open_device, open_devices

__all__ = ["DEVICES", "Device", "DeviceError", "open_device", "open_devices"]
