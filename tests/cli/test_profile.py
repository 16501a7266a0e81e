"""`nstgpu profile` and the recorder behind it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.commands import nstgpu
from nstgpu.engine.analysis.profile import OPERATIONS, Recorder, profile
from nstgpu.kernels import open_device


@pytest.mark.parametrize("device", ["cpu", "reference"])
def test_profile_has_a_row_for_every_operation(thin: Any, device: str) -> None:
    result = profile(open_device(device), thin([[8, 8], [16, 16]]), (40, 52), rounds=3, checked_size=(21, 34))
    names = [row.operation for row in result.rows]
    # Four convolutions forward, four backward, one pool between, two Grams, one content tap.
    counts = {name: names.count(name) for name in set(names)}
    assert counts == {
        "preprocess": 1, "conv3x3_relu": 4, "gram": 2, "style_cost": 2, "content_cost": 1, "style_gradient": 2,
        "content_gradient": 1, "relu_gradient": 1, "pool_input_gradient": 1, "conv3x3_input_gradient": 4,
        "preprocess_gradient": 1, "tv_cost": 1, "dots": 1, "adam_step": 1,
    }  # fmt: skip
    assert set(counts) <= set(OPERATIONS)
    convolution = next(row for row in result.rows if row.shape == "40x52x8 -> 20x26x8")
    assert convolution.flops == 2 * 9 * 40 * 52 * 8 * 8
    assert result.seconds is not None
    for row in result.rows:
        assert row.seconds is not None
        assert row.roofline is not None
        assert 0 < row.seconds < result.seconds * 3
        assert 0 <= row.error < (0.5 if device == "cpu" else 1e-6)


@pytest.mark.parametrize("device", ["cpu", "emulator"])
def test_it_knows_every_statistic(thin: Any, device: str) -> None:
    opened = _emulator() if device == "emulator" else open_device("cpu")
    result = profile(
        opened, thin([[8, 8], [16, 16]]), (20, 28), rounds=2, style_statistics="neighbors+sliced", checked_size=(20, 28)
    )
    names = [row.operation for row in result.rows]
    for name in ("neighbors_cost", "neighbors_gradient", "random_directions", "project", "sort_rows", "sliced_cost"):
        assert names.count(name) == (4 if name in ("project", "sort_rows") else 2)
    assert names.count("sliced_gradient") == 2
    for row in result.rows:
        assert 0 <= row.error < 1


def test_a_wrong_operation_shows_in_its_row(thin: Any) -> None:
    device = open_device("cpu")
    right = device.style_gradient

    def slightly_wrong(
        features: Any, gram_error: Any, *, out: Any, accumulate: bool, mean_error: Any = None, weights: Any = None
    ) -> None:
        wrong = gram_error * np.float32(1.001)
        right(features, wrong, out=out, accumulate=accumulate, mean_error=mean_error, weights=weights)

    device.style_gradient = slightly_wrong  # type: ignore[method-assign]
    result = profile(device, thin([[8, 8], [16, 16]]), (24, 24), rounds=2)
    wrong = {row.operation for row in result.rows if row.error > 1}
    assert wrong == {"style_gradient"}


def test_emulator_reports_kernels_and_errors_but_no_times(thin: Any) -> None:
    device = _emulator()
    result = profile(device, thin([[8, 8], [16, 16]]), (24, 24))
    assert result.seconds is None
    for row in result.rows:
        assert row.seconds is None
        assert row.kernels
        assert row.error <= 1
    assert any(kernel.startswith("gram") for row in result.rows for kernel in row.kernels)


def _emulator() -> Any:
    from nstgpu.kernels.emulator import NoCompilerError, find_compiler

    try:
        find_compiler()
    except NoCompilerError as error:
        pytest.skip(str(error))
    return open_device("emulator")


def test_recorder_is_transparent() -> None:
    device = open_device("reference")
    recorder = Recorder(device, check=False)
    assert recorder.name == "reference"
    assert recorder.allocate(16).nbytes == 16
    assert recorder.calls == []


def test_command_prints_a_table_and_writes_json(tmp_path: Path, small_weights: Path) -> None:
    common = ("profile", "--device", "cpu", "--size", "32", "--rounds", "2", "--weights", str(small_weights))
    shown = nstgpu(*common)
    assert shown.exit_code == 0, shown.output
    assert "conv3x3_input_gradient" in shown.stdout
    assert "one iteration" in shown.stdout
    filtered = nstgpu(*common, "--kernel", "gram")
    assert "conv3x3" not in filtered.stdout
    written = nstgpu(*common, "--json", str(tmp_path / "profile.json"))
    assert written.exit_code == 0
    result = json.loads((tmp_path / "profile.json").read_text())
    assert result["device"] == "cpu"
    assert len(result["rows"]) > 10
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".part"] == []


def test_unknown_kernel_is_named(small_weights: Path) -> None:
    result = nstgpu("profile", "--size", "32", "--rounds", "2", "--weights", str(small_weights), "--kernel", "fft")
    assert result.exit_code == 2
    assert "no operation or kernel has 'fft' in its name; there are preprocess, conv3x3_relu" in result.stderr
