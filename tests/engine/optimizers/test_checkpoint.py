"""A checkpoint that is damaged, or made to deceive, ends in one line; what a run wrote comes back to the last bit."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from harness.refusals import refusal
from nstgpu.cli import app
from nstgpu.engine.costs.terms import Costs
from nstgpu.engine.errors import SettingsError
from nstgpu.engine.optimizers import checkpoint
from nstgpu.engine.optimizers.coarse_to_fine import RunState

SEAL = 41 + 32


def state() -> RunState:
    image = np.random.default_rng(0).random((6, 8, 3)).astype(np.float32)
    costs = Costs(3.0, 1.0, 2.0, 0.5, {"relu1_1": 1.5, "relu2_1": 0.25}, 4.0)
    moments = {"first": image * 2, "second": image * 3, "step": np.zeros(1, np.int32)}
    return RunState(
        "f" * 64, 1, 5, 2, (0.5, 0.25), 0.02, image, image / 2, moments, [costs, costs], earlier=(7,), changed=(3, 9)
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    checkpoint.write(tmp_path / "state.h5", state(), '{"content": "ü.png"}')
    return tmp_path / "state.h5"


def changed(path: Path, change: Callable[[h5py.File], Any]) -> None:
    """Changes the file as its writer could, checksum and all."""
    path.write_bytes(path.read_bytes()[:-SEAL])
    with h5py.File(path, "r+") as file:
        change(file)
    content = path.read_bytes()
    path.write_bytes(content + checkpoint._SEAL + hashlib.sha256(content).digest())


def refusal_of(path: Path) -> str:
    message = refusal(SettingsError, checkpoint.read, path)
    assert message.startswith(f"{path} is no checkpoint, or is damaged: ")
    assert len(message) < 400 + len(str(path))
    return message


def test_what_was_written_comes_back(path: Path) -> None:
    read, options = checkpoint.read(path)
    wanted = state()
    assert options == '{"content": "ü.png"}'
    assert read.history == wanted.history
    for name in ("fingerprint", "scale", "iteration", "failures", "seconds", "learning_rate", "earlier", "changed"):
        assert getattr(read, name) == getattr(wanted, name)
    for one, other in ((read.image, wanted.image), (read.average, wanted.average)):
        assert one.dtype == other.dtype
        assert one.tobytes() == other.tobytes()
    assert read.optimizer.keys() == wanted.optimizer.keys()
    for name, values in wanted.optimizer.items():
        np.testing.assert_array_equal(read.optimizer[name], values)
    changed(path, lambda _: None)
    assert checkpoint.read(path)[1] == options  # `changed` alone changes nothing


def test_every_changed_byte_is_seen_before_hdf5_sees_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(h5py, "File", None)
    whole = path.read_bytes()
    for at in [*range(0, len(whole), 97), *range(len(whole) - SEAL, len(whole))]:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
        message = refusal_of(path)
        assert "not those that were written" in message or "does not end in a checksum" in message
    for length in range(0, len(whole), 501):
        path.write_bytes(whole[:length])
        assert "does not end in a checksum" in refusal_of(path)


def test_a_file_of_the_version_before(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-SEAL])
    assert "does not end in a checksum, as this version writes them; start the run again" in refusal_of(path)


def _replace(name: str, values: Any, **settings: Any) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[name]
        if isinstance(values, h5py.SoftLink | h5py.ExternalLink):
            file[name] = values
        else:
            file.create_dataset(name, data=values, **settings)

    return change


def _attribute(name: str, value: Any) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        file.attrs[name] = value

    return change


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_attribute("format", "nstgpu checkpoint 9"), "another version"),
        (_attribute("scale", -1), "its scale is -1"),
        (_attribute("iteration", 2**62), "its iteration is"),
        (_attribute("iteration", "many"), "its iteration is no number"),
        (_attribute("failures", [1, 2]), "its failures is no number"),
        (_attribute("learning_rate", 1), "its learning_rate is no number"),
        (_replace("seconds", [0.5]), "scales and their times"),
        (_replace("seconds", [0.5, np.nan]), "scales and their times"),
        (_replace("earlier", [7, 7]), "scales and its changes"),
        (_replace("earlier", [2**62]), "its earlier are no counts"),
        (_replace("changed", [9, 3]), "scales and its changes"),
        (_replace("changed", [0.5]), "its changed are no counts"),
        (_replace("changed", np.arange(1001)), "scales and its changes"),
        (_replace("image", np.zeros((6, 8, 4), np.float32)), "picture has the shape"),
        (_replace("image", np.zeros((6, 9, 3), np.float32)), "picture has the shape"),
        (_replace("image", np.full((6, 8, 3), np.nan, np.float32)), "values that no picture has"),
        (_replace("average", np.full((6, 8, 3), 1e38, np.float32)), "values that no picture has"),
        (_replace("optimizer/second", np.array([0, np.inf], np.float32)), "its second is not finite"),
        (_replace("image", np.zeros((6, 8, 3), np.float32), compression="gzip"), "not stored as nstgpu"),
        (_replace("average", h5py.SoftLink("/image")), "is a link"),
        (_replace("image", h5py.ExternalLink("/etc/passwd", "/image")), "is a link"),
        (_replace("optimizer/first", h5py.ExternalLink("other.h5", "/x")), "is a link"),
        (_replace("optimizer/first", np.array([b"text"])), "no array of numbers"),
        (_replace("optimizer", np.zeros(3)), "its optimizer is missing"),
        (_replace("options", np.frombuffer(b"\xff\xfe", np.uint8)), "codec"),
        (_replace("options", np.zeros(3)), "options are no text"),
        (_replace("history/costs", np.zeros((2, 4))), "its history has the shapes"),
        (_replace("history/per_layer", np.zeros((3, 2))), "its history has the shapes"),
        (_replace("history", np.zeros(3)), "its history"),
        (lambda file: file.pop("average"), "average is missing"),
        (lambda file: file.attrs.pop("scale"), "scale"),
    ],
)
def test_what_no_run_can_have_written_is_refused(path: Path, change: Any, told: str) -> None:
    changed(path, change)
    assert told in refusal_of(path)
    result = CliRunner().invoke(app, ["resume", str(path)])
    assert result.exit_code == 2
    assert "unexpected" not in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_an_array_far_larger_than_the_file(path: Path) -> None:
    def change(file: h5py.File) -> None:
        del file["image"]
        file.create_dataset("image", (100_000, 100_000, 3), np.float32)

    changed(path, change)
    assert "not stored as nstgpu" in refusal_of(path)


def test_numbers_that_lie_in_another_file(path: Path) -> None:
    (path.parent / "secret").write_bytes(b"\0" * 576)

    def change(file: h5py.File) -> None:
        del file["image"]
        file.create_dataset("image", (6, 8, 3), np.float32, external=[(str(path.parent / "secret"), 0, 576)])

    changed(path, change)
    assert "keeps its numbers in another file" in refusal_of(path)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"content": 5}', '{"nobody": 1}', "[" * 100_000])
def test_options_that_are_none(tmp_path: Path, text: str) -> None:
    checkpoint.write(tmp_path / "state.h5", state(), text)
    result = CliRunner().invoke(app, ["resume", str(tmp_path / "state.h5")])
    assert result.exit_code == 2, result.stderr
    assert len(result.stderr.splitlines()) == 1
