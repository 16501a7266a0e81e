"""The files that a campaign begins with: small and right, of every kind that a user may be given."""

import io
import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import nstgpu
from nstgpu.weights import load_weights
from nstgpu.weights.model import CAFFE, Convolution
from nstgpu.weights.writer import write_canonical

KINDS = ("pictures", "weights", "recipes", "checkpoints")
"""Of files; each is read by `reading.READ` of the same name."""


def make(folder: Path, kind: str) -> list[Path]:
    """Writes the seeds of a kind into a folder, and returns them in a fixed order."""
    folder.mkdir(parents=True, exist_ok=True)
    _MAKE[kind](folder)
    return sorted(folder.iterdir())


def _pictures(folder: Path) -> None:
    rng = np.random.default_rng(0)
    colors = Image.fromarray(rng.integers(0, 256, (13, 17, 3), np.uint8))
    deep = Image.fromarray(rng.integers(0, 65536, (13, 17), np.uint16))
    see_through = Image.fromarray(rng.integers(0, 256, (13, 17, 4), np.uint8))
    colors.save(folder / "colors.png")
    colors.save(folder / "text.png", pnginfo=_text())
    deep.save(folder / "deep.png")
    see_through.save(folder / "see_through.png")
    colors.quantize(16).save(folder / "palette.png")
    colors.save(folder / "colors.jpg", exif=_turned())
    colors.convert("CMYK").save(folder / "cmyk.jpg")
    colors.save(folder / "progressive.jpg", progressive=True)
    colors.save(folder / "colors.tif")
    deep.save(folder / "deep.tif")
    for compression in ("tiff_lzw", "tiff_deflate", "packbits"):
        colors.save(folder / f"{compression}.tif", compression=compression)
    colors.save(folder / "colors.webp")
    see_through.save(folder / "moving.webp", save_all=True, append_images=[see_through.rotate(90)])
    colors.quantize(8).save(folder / "colors.gif", save_all=True, append_images=[colors.quantize(8).rotate(180)])
    colors.save(folder / "colors.bmp")


def _text() -> PngInfo:
    info = PngInfo()
    info.add_text("nstgpu recipe", 'nstgpu = "0.1.0"\ncontent = "a.jpg"\nstyles = ["b.jpg"]\n', zip=True)
    return info


def _turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation
    return exif.tobytes()


def _weights(folder: Path) -> None:
    rng = np.random.default_rng(0)
    widths = [(1, 1, 3, 4), (1, 2, 4, 4), (2, 1, 4, 8)]
    layers = [
        Convolution(block, index, rng.standard_normal((3, 3, a, b)).astype(np.float32), np.zeros(b, np.float32))
        for block, index, a, b in widths
    ]
    write_canonical(folder / "canonical.h5", layers, CAFFE)
    write_canonical(folder / "half.h5", layers, CAFFE, half=True)
    tensors = {}
    for number, layer in zip((0, 2, 5), layers, strict=True):
        tensors[f"features.{number}.weight"] = np.ascontiguousarray(layer.kernel.transpose(3, 2, 0, 1))
        tensors[f"features.{number}.bias"] = layer.bias
    _safetensors(folder / "network.safetensors", tensors)
    np.savez(folder / "network.npz", **{  # type: ignore[arg-type]
        f"conv{layer.block}_{layer.index}_{part}": getattr(layer, name)
        for layer in layers for part, name in (("W", "kernel"), ("b", "bias"))
    })  # fmt: skip
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("model.weights.h5", (folder / "canonical.h5").read_bytes())
        archive.writestr("config.json", json.dumps({"class_name": "Sequential", "config": {"layers": []}}))
    (folder / "model.keras").write_bytes(packed.getvalue())
    for path in folder.iterdir():
        if path.suffix == ".h5":
            load_weights(path)  # a seed that is refused would try nothing


def _safetensors(path: Path, tensors: dict[str, np.ndarray]) -> None:
    header, data = {}, b""
    for name, values in tensors.items():
        header[name] = {"dtype": "F32", "shape": values.shape, "data_offsets": [len(data), len(data) + values.nbytes]}
        data += values.tobytes()
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def _recipes(folder: Path) -> None:
    (folder / "recipe.toml").write_text(
        'nstgpu = "0.1.0"\ncontent = "a.jpg"\nstyles = ["b.jpg=0.3", "c.png"]\nsize = 128\niterations = "20,10"\n'
        'style_layers = ["relu1_1=2", "relu2_1"]\nseed = 7\nnoise = 0.25\nstop_when_settled = true\n'
    )


def _checkpoints(folder: Path) -> None:
    from nstgpu.engine.optimizers import checkpoint

    rng = np.random.default_rng(0)
    pictures = [rng.random((16, 16, 3)).astype(np.float32) for _ in range(2)]
    transfer = nstgpu.StyleTransfer(*pictures, device="cpu", threads=1)
    states: list[nstgpu.RunState] = []
    transfer.run(2, on_iteration=lambda progress: states.append(progress.state()))
    checkpoint.write(folder / "run.ckpt", states[-1], '{"nstgpu": "0.1.0"}')


_MAKE: dict[str, Callable[[Path], None]] = dict(zip(KINDS, (_pictures, _weights, _recipes, _checkpoints), strict=True))
