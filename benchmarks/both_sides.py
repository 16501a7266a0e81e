"""The work that is compared, once for nstgpu and once in PyTorch: one gradient of the classic cost.

VGG-19's convolutions to relu5_1, the Grams of five layers, the content of relu4_2, and the gradient with respect to
float32 pixels. Both sides get the same filters, images and weights of the cost. PyTorch is imported where it is used.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nstgpu import StyleTransfer, Weights, load_weights
from nstgpu.engine.imaging import files as images
from nstgpu.engine.imaging.resize import resized
from nstgpu.kernels import open_device
from nstgpu.kernels.device import Device

STYLE = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
CONTENT = "relu4_2"
THIN = (16, 32, 64, 128, 128)  # widths of a thin VGG-19, block by block
EXAMPLES = Path(__file__).parents[1] / "examples"
CONTENT_SHARE, STYLE_SHARE = 1.0, 300.0  # as `StyleTransfer` chooses weights that are left open

Pixels = NDArray[np.float32]
Images = tuple[Pixels, Pixels, Pixels]
"""The content, the style, and the image whose gradient is wanted, (H, W, 3) each."""


@dataclass(frozen=True)
class Balance:
    """Weights of the cost: of the content, and of each layer's style."""

    content: float
    style: Mapping[str, float]


EVEN = Balance(1.0, dict.fromkeys(STYLE, 1.0))


def style_taps(weights: Weights) -> tuple[str, ...]:
    """Those of STYLE that the network has."""
    return tuple(tap for tap in STYLE if tap in weights.taps)


def content_tap(weights: Weights) -> str:
    """CONTENT, or the network's last where it ends before."""
    return CONTENT if CONTENT in weights.taps else weights.taps[-1]


def weights_of(model: str) -> Weights:
    """VGG-19's shapes, random; the same chain with the widths of THIN; or `mini`, which ends at relu3_4."""
    if model == "mini":
        return load_weights("mini")
    weights = load_weights("random:0")
    if model == "vgg19":
        return weights
    thin, channels = [], 3
    for convolution in weights.convolutions:
        width = THIN[convolution.block - 1]
        scale = np.float32(np.sqrt(convolution.kernel.shape[2] / channels))
        kernel = np.ascontiguousarray(convolution.kernel[:, :, :channels, :width]) * scale
        thin.append(replace(convolution, kernel=kernel, bias=convolution.bias[:width]))
        channels = width
    return replace(weights, name="thin", convolutions=tuple(thin))


def noise(size: int) -> Images:
    rng = np.random.default_rng(size)
    content, style, image = (rng.random((size, size, 3), np.float32) for _ in range(3))
    return content, style, image


def pictures(size: int) -> Images:
    """The two of `examples`, and their mean, which has something of both."""
    device = open_device("cpu")
    content, style = (
        resized(device, images.read(EXAMPLES / name).pixels, (size, size)).astype(np.float32)
        for name in ("content.jpg", "style.jpg")
    )
    return content, style, (content + style) * np.float32(0.5)


def transfer(
    weights: Weights, of: Images, device: str | Device, *, balance: Balance = EVEN, **settings: Any
) -> StyleTransfer:
    """Our side."""
    content, style, _ = of
    return StyleTransfer(
        content, style, weights=weights, device=device, content_layers={content_tap(weights): balance.content},
        style_layers={tap: balance.style[tap] for tap in style_taps(weights)},
        content_weight=1.0, style_weight=1.0, tv_weight=0.0, **settings,
    )  # fmt: skip


class PyTorch:
    """The other side: everything channels_last, the network in `dtype` ("float32", "bfloat16"), pixels in float32."""

    def __init__(
        self, weights: Weights, of: Images, device: str, dtype: str = "float32", balance: Balance = EVEN
    ) -> None:
        import torch

        torch.backends.cudnn.benchmark = True
        self._torch, self._real = torch, getattr(torch, dtype)
        self._weights, self._balance = weights, balance

        def to_device(array: Any) -> Any:
            return torch.from_numpy(np.array(array, order="C")).to(device)

        self._style, self._content = style_taps(weights), content_tap(weights)
        deepest = max(weights.taps.index(tap) for tap in (*self._style, self._content)) + 1
        kernels = [convolution.kernel.transpose(3, 2, 0, 1) for convolution in weights.convolutions[:deepest]]
        p = weights.preprocessing
        order = np.argsort(p.channels)  # the first filters take RGB, so that no channels need be exchanged
        kernels[0] = kernels[0][:, order]
        self._kernels = [to_device(k).to(self._real, memory_format=torch.channels_last) for k in kernels]
        self._biases = [to_device(c.bias).to(self._real) for c in weights.convolutions[:deepest]]
        scale = np.array([p.scale / std for std in p.std], np.float32)[order]
        shift = np.array([-mean / std for mean, std in zip(p.mean, p.std, strict=True)], np.float32)[order]
        self._scale, self._shift = (to_device(values).view(1, 3, 1, 1) for values in (scale, shift))
        content, style, self.image = (
            to_device(pixels.transpose(2, 0, 1)[None]).contiguous(memory_format=torch.channels_last) for pixels in of
        )
        with torch.no_grad():
            self._target = self._features(content)[self._content].clone()
            self._grams = {tap: _gram(x) for tap, x in self._features(style).items() if tap in self._style}
        self.image.requires_grad_(True)

    def _features(self, image: Any) -> dict[str, Any]:
        functional = self._torch.nn.functional
        x = (image * self._scale + self._shift).to(self._real)
        taps, block = {}, 1
        for convolution, kernel, bias in zip(self._weights.convolutions, self._kernels, self._biases, strict=False):
            if convolution.block != block:
                x, block = functional.max_pool2d(x, 2), convolution.block
            x = functional.relu(functional.conv2d(x, kernel, bias, padding=1), inplace=True)
            if convolution.tap in (*self._style, self._content):
                taps[convolution.tap] = x
        return taps

    def cost(self, image: Any) -> Any:
        """Of (1, 3, H, W) pixels."""
        taps = self._features(image)
        cost = self._balance.content / 2 * self._torch.nn.functional.mse_loss(taps[self._content], self._target).float()
        for tap in self._style:
            gram_error = (_gram(taps[tap]) - self._grams[tap]).float()
            cost = cost + self._balance.style[tap] * gram_error.square().sum() / (4 * len(gram_error) ** 2)
        return cost

    def gradient(self, image: Any = None, cost: Any = None) -> Any:
        """(1, 3, H, W), on the device; of another `cost` or at another `image` than its own if they are given."""
        image = self.image if image is None else image
        (gradient,) = self._torch.autograd.grad((cost or self.cost)(image), image)
        return gradient

    @property
    def constants(self) -> list[Any]:
        """Every tensor but the image."""
        return [*self._kernels, *self._biases, self._scale, self._shift, self._target, *self._grams.values()]

    def balance(self) -> Balance:
        """Weights that make every layer's cost count alike, measured as `StyleTransfer` does."""
        content = float(self._target.float().square().mean()) / 2
        style = {tap: float(gram.float().square().sum()) / (4 * len(gram) ** 2) for tap, gram in self._grams.items()}
        return Balance(CONTENT_SHARE / content, {tap: STYLE_SHARE / len(STYLE) / style[tap] for tap in STYLE})


def _gram(x: Any) -> Any:
    flat = x[0].permute(1, 2, 0).reshape(-1, x.shape[1])  # a view, since x is channels_last
    return flat.T @ flat / len(flat)


def to_host(gradient: Any) -> Pixels:
    """PyTorch's (1, 3, H, W) as ours, (H, W, 3)."""
    values: Pixels = gradient[0].permute(1, 2, 0).float().cpu().numpy()
    return values


def gram_error(gradient: Pixels, expected: Pixels) -> float:
    """Relative, in L2; NaN never is small."""
    ours, right = gradient.astype(np.float64), expected.astype(np.float64)
    return float(np.linalg.norm(ours - right) / np.linalg.norm(right))
