"""The precisions, one row each: everything else in the program that knows one by name asks this table.

A new precision is a row here and a kernel set: a class in `kernel_sets`, or in a file of its own that this names. NumPy
is not needed to know what there is.
"""

from dataclasses import dataclass

ANY = 999
"""As the highest compute capability: there is none."""


@dataclass(frozen=True)
class KernelSet:
    """Kernels that compute in a precision, on GPUs of these compute capabilities (80 for 8.0), both included."""

    least: int
    most: int
    name: str
    """Of the class, in `kernel_sets`."""


@dataclass(frozen=True)
class Precision:
    """How activations are stored, and which kernels multiply them."""

    storage: str
    """Of activations and the gradients within the network, as the field calls it: "float32", "bfloat16", ..."""
    kernel_sets: tuple[KernelSet, ...] = ()
    """Of several that fit, the last that has no problem is taken. None: the reference alone computes so."""
    sources: tuple[str, ...] = ()
    """Of its kernels on tensor cores, in the folder instantiations; none where it needs no tensor cores."""
    rate: float = 0.0
    """What products reach on tensor cores, as a share of those of 16-bit numbers."""
    operand_parts: int = 1
    """Numbers that products split an operand into."""
    loss_scale: float = 1.0
    """How many times larger than they are gradients are held within the network. A power of two, so that nothing is
    rounded."""

    @property
    def on_tensor_cores(self) -> bool:
        return bool(self.sources)

    @property
    def itemsize(self) -> int:
        """Bytes of a stored number."""
        return int(self.storage.removeprefix("b").removeprefix("float")) // 8


def _of_16_bits(name: str, storage: str, least: int, loss_scale: float = 1.0) -> Precision:
    return Precision(
        storage,
        (KernelSet(least, ANY, "Mma16BitKernels"), KernelSet(90, 90, "WgmmaKernels")),
        (f"sm80_{name}.cu", f"sm90_{name}.cu"),
        rate=1.0,
        loss_scale=loss_scale,
    )


_FLOAT32 = (KernelSet(80, ANY, "MmaKernels"), KernelSet(90, 90, "WgmmaFloat32Kernels"))
_TF32 = ("sm80_tf32.cu", "sm90_fp32.cu")

PRECISIONS = {
    "fp32": Precision("float32", (KernelSet(0, ANY, "SimtKernels"),)),
    "tf32": Precision("float32", _FLOAT32, _TF32, rate=1 / 2),
    "3xtf32": Precision("float32", _FLOAT32, _TF32, rate=1 / 6, operand_parts=2),
    "bf16": _of_16_bits("bf16", "bfloat16", 80),
    # fp16's normal numbers reach from 2^-14 to 2^16. With the weights that are chosen where none are given, VGG-19's
    # filters and mini's have gradients of at most 2^-8 at 64 px and 2^-12 at 256 px, and at 256 px a root mean square
    # of 2^-29 where the content enters, of 2^-18 where a style does. They fall with the pixel count.
    "fp16": _of_16_bits("fp16", "float16", 75, loss_scale=2.0**16),
    "fp64": Precision("float64"),
}
"""By the name that a user gives."""

AUTO = "bf16"
"""What "auto" is on a GPU whose tensor cores know it; elsewhere fp32."""


def on_tensor_cores() -> list[str]:
    """The names of those that want tensor cores."""
    return [name for name, precision in PRECISIONS.items() if precision.on_tensor_cores]


def on_gpus() -> tuple[str, ...]:
    """The names of those that a GPU can have."""
    return tuple(name for name, precision in PRECISIONS.items() if precision.kernel_sets)
