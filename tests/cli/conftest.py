"""A small weights file, as commands want one."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from harness.commands import fill


@pytest.fixture(autouse=True)
def own_data(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key that seals checkpoints lies in a passing folder."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path_factory.getbasetemp() / "data"))


@pytest.fixture(scope="session")
def small_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three thin convolutions in the official layout."""
    path = tmp_path_factory.mktemp("weights") / "small.h5"
    rng = np.random.default_rng(0)
    names = ["block1_conv1", "block1_conv2", "block2_conv1"]
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [name.encode() for name in names]
        for name, shape in zip(names, [(3, 8), (8, 8), (8, 16)], strict=True):
            group = file.create_group(name)
            group.attrs["weight_names"] = [f"{name}_W_1:0".encode(), f"{name}_b_1:0".encode()]
            group[f"{name}_W_1:0"] = rng.standard_normal((3, 3, *shape)).astype(np.float32) / 3
            group[f"{name}_b_1:0"] = np.zeros(shape[1], np.float32)
    return path


@pytest.fixture
def folder(tmp_path: Path, small_weights: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with two pictures and a small network in it; the one around it is free."""
    folder = tmp_path / "folder"
    fill(folder, small_weights)
    monkeypatch.chdir(folder)
    return folder
