"""One kernel of ours in a PyTorch model, in place of conv2d and relu: python examples/kernels.py [size]

`Conv3x3ReLU` is a drop-in for both, forward and backward; it is compared with PyTorch's own, and timed beside the NumPy
reference. On a GPU our CUDA kernel computes, else the cpu device; without PyTorch the same is shown on NumPy arrays.
"""

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from nstgpu import kernels

try:
    import torch
except ImportError:
    torch = None  # type: ignore[assignment, unused-ignore]

size = int(sys.argv[1]) if len(sys.argv) > 1 else 128
channels = 64
rng = np.random.default_rng(0)
x = rng.standard_normal((size, size, channels)).astype(np.float32)
kernel = (rng.standard_normal((3, 3, channels, channels)) / np.sqrt(9 * channels)).astype(np.float32)
bias = rng.standard_normal(channels).astype(np.float32)


def milliseconds(work: Callable[[], object], wait: Callable[[], object] = lambda: None, runs: int = 5) -> float:
    """The best of some runs, after one that compiles and allocates."""
    seconds = []
    for _ in range(runs + 1):
        began = time.perf_counter()
        work()
        wait()
        seconds.append(time.perf_counter() - began)
    return min(seconds[1:]) * 1e3


def off(actual: Any, expected: Any) -> float:
    return float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))


def with_numpy() -> float:
    filters = kernels.pack_filters(kernel, bias)
    y = kernels.conv3x3_relu(x, filters)
    print(f"cpu: {tuple(y.shape)}, off by {off(y, kernels.conv3x3_relu(x, filters, device='reference')):.1e}")
    return milliseconds(lambda: kernels.conv3x3_relu(x, filters))


def with_pytorch() -> float:
    class Function(torch.autograd.Function):  # type: ignore[misc, unused-ignore]
        """relu(conv2d(x, weight, bias, padding=1)); the weights are frozen, as a style transfer's are."""

        @staticmethod
        def forward(ctx: Any, nchw: Any, filters: Any) -> Any:
            y, relu_mask = kernels.conv3x3_relu(nchw[0].permute(1, 2, 0), filters, relu_mask=True)
            ctx.filters = filters
            ctx.save_for_backward(relu_mask)
            return y.permute(2, 0, 1)[None]

        @staticmethod
        def backward(ctx: Any, gradient: Any) -> Any:
            (relu_mask,) = ctx.saved_tensors
            above = gradient[0].permute(1, 2, 0).contiguous()
            masked = kernels.relu_gradient(above, relu_mask)
            return kernels.conv3x3_input_gradient(masked, ctx.filters).permute(2, 0, 1)[None], None

    class Conv3x3ReLU(torch.nn.Module):  # type: ignore[misc, unused-ignore]
        """Takes the weights of a torch.nn.Conv2d(.., 3, padding=1), and one image in channels_last memory."""

        def __init__(self, convolution: torch.nn.Conv2d) -> None:
            super().__init__()
            self.filters = kernels.pack_filters(convolution.weight.permute(2, 3, 1, 0), convolution.bias)

        def forward(self, nchw: Any) -> Any:
            return Function.apply(nchw.contiguous(memory_format=torch.channels_last), self.filters)

    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        print("PyTorch sees no GPU; the cpu device computes")
    plain = torch.nn.Conv2d(channels, channels, 3, padding=1).to(device, memory_format=torch.channels_last)
    with torch.no_grad():
        plain.weight.copy_(torch.from_numpy(kernel).permute(3, 2, 0, 1))
        plain.bias.copy_(torch.from_numpy(bias))
    ours, theirs = Conv3x3ReLU(plain), torch.nn.Sequential(plain, torch.nn.ReLU())
    image = torch.from_numpy(x).to(device).permute(2, 0, 1)[None]
    results = []
    for model in (ours, theirs):
        leaf = image.clone().requires_grad_()
        y = model(leaf)
        y.square().mean().backward()
        results.append((y.detach().cpu().numpy(), leaf.grad.cpu().numpy()))
    print(f"{device}: forward off by {off(results[0][0], results[1][0]):.1e}, "
          f"gradient by {off(results[0][1], results[1][1]):.1e}")  # fmt: skip

    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    with torch.no_grad():
        print(f"PyTorch's conv2d and relu: {milliseconds(lambda: theirs(image), wait):.2f} ms")
        return milliseconds(lambda: ours(image), wait)


if torch is None:
    print("PyTorch is not installed; the same kernel on NumPy arrays:")
spent = with_numpy() if torch is None else with_pytorch()
reference = milliseconds(lambda: kernels.conv3x3_relu(x, (kernel, bias), device="reference"), runs=1)
gflop = 2 * 9 * channels**2 * size**2 / 1e9
print(f"ours: {spent:.2f} ms, {gflop / spent * 1e3:.0f} GFLOP/s; the NumPy reference: {reference:.1f} ms, "
      f"{reference / spent:.1f} times as long")  # fmt: skip
