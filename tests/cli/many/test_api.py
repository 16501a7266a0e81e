"""`nstgpu.Batch`, as programs use it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nstgpu
from harness.commands import nstgpu as command
from nstgpu.batch.tasks import Outcome
from nstgpu.engine.imaging import files as images

pytestmark = [pytest.mark.usefixtures("folder"), pytest.mark.filterwarnings("ignore:the weights")]
SETTINGS: dict[str, Any] = {
    "weights": "small.h5",
    "size": 32,
    "min_size": 16,
    "iterations": 2,
    "device": "cpu",
    "threads": 1,
}


def test_a_batch_tells_of_each_picture_and_has_the_bytes_of_the_command() -> None:
    images.save(Path("other.png"), np.random.default_rng(3).random((24, 32, 3)))
    batch = nstgpu.Batch(["content.jpg", Path("other.png")], [Path("style.png")], "out", **SETTINGS)
    assert [task.output.name for task in batch.plan.missing] == ["content_style_32.png", "other_style_32.png"]
    told: list[Outcome] = []
    shares: list[tuple[int, float]] = []
    summary = batch.run(on_outcome=told.append, on_progress=lambda task, share: shares.append((task.number, share)))
    assert [outcome.state for outcome in told] == ["painted", "painted"]
    assert summary.complete
    assert str(summary) == "2 pictures painted"
    assert {number for number, _ in shares} == {0, 1}
    assert all(0 <= share <= 1 for _, share in shares)
    given = ["--weights", "small.h5", "--size", "32", "--min-size", "16", "--iterations", "2", "--device", "cpu"]
    done = command("batch", "content.jpg", "other.png", "--style", "style.png", *given, "-o", "out", "--threads", "1")
    assert "0 pictures painted, 2 there already" in done.output
    assert len(nstgpu.Batch(["content.jpg"], ["style.png"], "out", **SETTINGS).plan.missing) == 0


def test_a_callback_ends_a_batch_or_fails_for_itself() -> None:
    batch = nstgpu.Batch(["content.jpg"], ["style.png"], "out", **SETTINGS)
    assert batch.run(on_progress=lambda _, __: False).left == 1

    def fails(*_: object) -> None:
        raise LookupError("the caller's own")

    with pytest.raises(LookupError, match="the caller's own"):
        batch.run(on_progress=fails)
    assert not list(Path("out").glob("*")) if Path("out").exists() else True


def test_what_no_option_is_called_is_refused() -> None:
    with pytest.raises(nstgpu.SettingsError, match="'sise', which this version does not know"):
        nstgpu.Batch(["content.jpg"], ["style.png"], "out", sise=3)
