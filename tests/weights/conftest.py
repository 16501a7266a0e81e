"""A small VGG, every way of storing it (the layouts a-e, written with plain h5py calls), and a server that gives it."""

import hashlib
import io
import json
import os
import threading
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from nstgpu.weights import Weights
from nstgpu.weights.official.catalogue import OfficialFile


@dataclass
class Layer:
    block: int
    index: int
    name: str
    """As the file is to call it."""
    kernel: np.ndarray
    bias: np.ndarray


def chain(depths: Sequence[int], widths: Sequence[int], dtype: Any = np.float32) -> list[Layer]:
    """A VGG-like chain with random numbers."""
    generator = np.random.default_rng(0)
    layers, channels = [], 3
    for block, (depth, width) in enumerate(zip(depths, widths, strict=True), start=1):
        for index in range(1, depth + 1):
            kernel = generator.standard_normal((3, 3, channels, width)).astype(dtype)
            bias = generator.standard_normal(width).astype(dtype)
            layers.append(Layer(block, index, f"block{block}_conv{index}", kernel, bias))
            channels = width
    return layers


def with_pools(layers: Sequence[Layer]) -> list[Layer | None]:
    """The layers with a None for each pool, one at the end too."""
    steps: list[Layer | None] = []
    for layer, after in zip(layers, [*layers[1:], None], strict=False):
        steps.append(layer)
        if after is None or after.block != layer.block:
            steps.append(None)
    return steps


def theano_kernel(kernel: np.ndarray) -> np.ndarray:
    return kernel.transpose(3, 2, 0, 1)[:, :, ::-1, ::-1]


def model_config(layers: Sequence[Layer], nested: bool = False, **settings: Any) -> dict[str, Any]:
    """A Keras model configuration, as far as anyone reads it; `settings` go to every convolution."""
    described: list[dict[str, Any]] = [{"class_name": "InputLayer", "config": {"name": "input_1"}}]
    for number, layer in enumerate(with_pools(layers)):
        if layer is None:
            pool = {"name": f"p{number}", "pool_size": [2, 2], "strides": [2, 2]}
            described.append({"class_name": "MaxPooling2D", "config": pool})
        else:
            plain = {"name": layer.name, "strides": [1, 1], "dilation_rate": [1, 1], "activation": "relu"}
            described.append({"class_name": "Conv2D", "config": plain | settings})
    model = {"class_name": "Functional", "config": {"name": "vgg", "layers": described}}
    return {"class_name": "Sequential", "config": {"name": "outer", "layers": [model]}} if nested else model


class WeightsFiles:
    """Writes a chain in any layout into a temporary folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.layers = chain((2, 2, 3), (4, 6, 8))

    chain = staticmethod(chain)
    model_config = staticmethod(model_config)
    theano_kernel = staticmethod(theano_kernel)

    def renamed(self, layers: Sequence[Layer]) -> list[Layer]:
        """The same layers with names that say nothing about blocks."""
        return [replace(layer, name=f"c{number}") for number, layer in enumerate(layers)]

    def named(
        self,
        layers: Sequence[Layer] | None = None,
        *,
        file: str = "vgg.h5",
        keras2: bool = False,
        split: bool = False,
        pools: bool = True,
    ) -> Path:
        """Layout a: the official files' way, or Keras 2's; `split` writes the attribute in pieces."""
        path = self.folder / file
        with h5py.File(path, "w") as root:
            self.write_named(root, self.layers if layers is None else layers, keras2, pools)
            if split:
                names = root.attrs["layer_names"]
                del root.attrs["layer_names"]
                for piece, part in enumerate(np.array_split(names, 3)):
                    root.attrs[f"layer_names{piece}"] = part
        return path

    def write_named(self, root: h5py.Group, layers: Sequence[Layer], keras2: bool = False, pools: bool = True) -> None:
        names = ["input_1"]
        root.create_group("input_1").attrs["weight_names"] = np.array([], "S1")
        for number, layer in enumerate(with_pools(layers) if pools else layers):
            name = f"pool_{number}" if layer is None else layer.name
            names.append(name)
            group = root.create_group(name)
            if layer is None:
                group.attrs["weight_names"] = np.array([], "S1")
                continue
            weight_names = [f"{name}/kernel:0", f"{name}/bias:0"] if keras2 else [f"{name}_W_1:0", f"{name}_b_1:0"]
            group.attrs["weight_names"] = np.array(weight_names, "S")
            group[weight_names[0]] = layer.kernel
            group[weight_names[1]] = layer.bias
        root.attrs["layer_names"] = np.array(names, "S")

    def model_saved(self, *, nested: bool, config: dict[str, Any] | None) -> Path:
        """Layout b as Keras 3 writes it: str, no ":0", an extra group; a nested model is one group."""
        path = self.folder / "saved.h5"
        layers = self.layers
        with h5py.File(path, "w") as file:
            file.attrs["backend"] = "tensorflow"
            if config is not None:
                file.attrs["model_config"] = json.dumps(config)
            root = file.create_group("model_weights")
            root.create_group("top_level_model_weights").attrs["weight_names"] = []
            groups = {"vgg": layers} if nested else {layer.name: [layer] for layer in layers}
            root.attrs["layer_names"] = list(groups)
            for name, members in groups.items():
                group = root.create_group(name)
                prefix = "vgg/" if nested else ""
                weight_names = []
                for layer in members:
                    for kind, array in (("kernel", layer.kernel), ("bias", layer.bias)):
                        weight_names.append(f"{prefix}{layer.name}/{kind}")
                        group[weight_names[-1]] = array
                group.attrs["weight_names"] = weight_names
        return path

    def numbered(
        self,
        layers: Sequence[Layer] | None = None,
        *,
        names: bool = False,
        pools: bool = True,
        inside: str = "layers",
        file: str = "vgg.weights.h5",
    ) -> Path:
        """Layout c: Keras 3's `vars/0`, `vars/1`; with the layers' names since 3.8."""
        path = self.folder / file
        with h5py.File(path, "w") as root:
            self.write_numbered(root, self.layers if layers is None else layers, names, pools, inside)
        return path

    def write_numbered(
        self,
        root: h5py.Group,
        layers: Sequence[Layer],
        names: bool,
        pools: bool = True,
        inside: str = "layers",
    ) -> None:
        root.create_group("vars")
        seen = {"conv2d": 0, "max_pooling2d": 0}
        for layer in with_pools(layers):
            if layer is None and not pools:
                continue
            kind = "conv2d" if layer else "max_pooling2d"
            number = f"_{seen[kind]}" if seen[kind] else ""
            seen[kind] += 1
            variables = root.create_group(f"{inside}/{kind}{number}/vars")
            if layer is not None:
                variables["0"], variables["1"] = layer.kernel, layer.bias
                if names:
                    variables.attrs["name"] = layer.name
        dropout = root.create_group(f"{inside}/dropout/seed_generator/vars")
        dropout["0"] = np.zeros(2, np.uint32)

    def archive(
        self, layers: Sequence[Layer] | None = None, config: dict[str, Any] | None = None, names: bool = True
    ) -> Path:
        """A `.keras` archive around layout c."""
        layers = self.layers if layers is None else layers
        inner = io.BytesIO()
        with h5py.File(inner, "w") as root:
            self.write_numbered(root, layers, names)
        return self.zipped({"config.json": json.dumps(config), "model.weights.h5": inner.getvalue()})

    def zipped(self, members: dict[str, str | bytes]) -> Path:
        path = self.folder / "vgg.keras"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        return path

    def first_vgg(self, layers: Sequence[Layer] | None = None, *, padding: bool = True) -> Path:
        """Layout e: `layer_{k}`, where k counts padding and pooling; kernels as Theano stored them."""
        path = self.folder / "vgg16_weights.h5"
        with h5py.File(path, "w") as root:
            k = 0
            for layer in with_pools(self.layers if layers is None else layers):
                if layer is not None and padding:
                    root.create_group(f"layer_{k}").attrs["nb_params"] = 0
                    k += 1
                group = root.create_group(f"layer_{k}")
                k += 1
                group.attrs["nb_params"] = 2 if layer else 0
                if layer is not None:
                    group["param_0"], group["param_1"] = theano_kernel(layer.kernel), layer.bias
            root.attrs["nb_layers"] = k
        return path

    def assert_equal(self, weights: Weights, layers: Sequence[Layer] | None = None) -> None:
        """Places, numbers and form are those of `layers`."""
        layers = self.layers if layers is None else layers
        places = [(convolution.block, convolution.index) for convolution in weights.convolutions]
        assert places == [(layer.block, layer.index) for layer in layers]
        for convolution, layer in zip(weights.convolutions, layers, strict=True):
            np.testing.assert_array_equal(convolution.kernel, layer.kernel.astype(np.float32))
            np.testing.assert_array_equal(convolution.bias, layer.bias.astype(np.float32))
            for array in (convolution.kernel, convolution.bias):
                assert array.dtype == np.float32
                assert array.flags.c_contiguous
                assert not array.flags.writeable


@pytest.fixture
def files(tmp_path: Path) -> WeightsFiles:
    return WeightsFiles(tmp_path)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The data set that stands beside the repository, or skip."""
    beside = Path(__file__).resolve().parents[2].parent / "shared" / "data"
    path = Path(os.environ.get("NSTGPU_SHARED_DATA", beside))
    if not path.is_dir():
        pytest.skip("no shared data: set NSTGPU_SHARED_DATA")
    return path


class Web:
    """A server on this machine that gives one file, well or badly: `answers` are used up one a request.

    An answer takes the request's handler and the first byte asked for. When none is left the file is sent properly.
    """

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.answers: list[Callable[[BaseHTTPRequestHandler, int], None]] = []
        self.ranges: list[str | None] = []
        """The Range of each request."""
        self.over = threading.Event()
        """Set at the end, so that nobody goes on stalling."""
        web = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                wanted = self.headers["Range"]
                web.ranges.append(wanted)
                start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
                (web.answers.pop(0) if web.answers else web.send)(self, start)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/tensorflow/vgg19_notop.h5"

    @property
    def official(self) -> OfficialFile:
        """What it gives, as the catalogue would have it."""
        md5 = hashlib.md5(self.content).hexdigest()
        return OfficialFile("vgg19", "VGG-19", self.url, len(self.content), md5)

    def send(self, request: BaseHTTPRequestHandler, start: int, length: int | None = None) -> None:
        """The file from `start` on, or as much as `length` of it, announced whole."""
        body = self.content[start:]
        request.send_response(206 if start else 200)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(self.content) - 1}/{len(self.content)}")
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body[:length])

    def close(self) -> None:
        self.over.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def web(files: WeightsFiles, monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    """Gives a small VGG."""
    for variable in list(os.environ):
        if variable.lower().endswith("_proxy"):
            monkeypatch.delenv(variable)
    web = Web(files.named(file="original.h5").read_bytes())
    yield web
    web.close()
