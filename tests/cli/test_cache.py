"""`nstgpu cache`: what it shows, and that clearing keeps what is not the cache's."""

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nstgpu.cli import app
from nstgpu.kernels.cache import cache_directory, cached, digest
from nstgpu.weights.official.catalogue import OFFICIAL_FILES


@pytest.fixture(autouse=True)
def filled_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with two cubins, a library, two weights files, one of them the user's."""
    monkeypatch.setenv("NSTGPU_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv("NSTGPU_WEIGHTS_DIR")
    monkeypatch.setenv("COLUMNS", "300")
    for kind, key, suffix in (("cubin", b"1", ".cubin"), ("cubin", b"2", ".cubin"), ("emulator", b"3", ".so")):
        cached(cache_directory(kind), digest(key), suffix, lambda target: target.write_bytes(bytes(500_000)))
    (tmp_path / "weights").mkdir()
    for name in (OFFICIAL_FILES[0].file_name, "mine.h5"):
        (tmp_path / "weights" / name).write_bytes(bytes(2_000_000))
    return tmp_path


def said(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["cache", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_what_is_kept_is_shown(filled_cache: Path) -> None:
    shown = said()
    for words in ("kernels for GPUs", "the emulator's libraries", "fetched weights", "1.0 MB", "0.5 MB", "2.0 MB"):
        assert words in shown
    assert str(filled_cache / "cubin") in shown
    assert "cannot be kept" not in shown
    facts = json.loads(said("--json"))
    assert facts["folder"] == str(filled_cache)
    assert {kind: (of["files"], of["bytes"]) for kind, of in facts["kinds"].items()} == {
        "cubin": (2, 1_000_000), "emulator": (1, 500_000), "weights": (1, 2_000_000)
    }  # fmt: skip


def test_clearing_keeps_the_weights_unless_asked(filled_cache: Path) -> None:
    official, mine = filled_cache / "weights" / OFFICIAL_FILES[0].file_name, filled_cache / "weights" / "mine.h5"
    assert said("clear").splitlines() == [
        "kernels for GPUs: removed 2 files, 1.0 MB",
        "the emulator's libraries: removed 1 file, 0.5 MB",
    ]
    assert official.exists()
    assert said("clear", "--weights").splitlines()[-1] == "fetched weights: removed 1 file, 2.0 MB"
    assert not official.exists()
    assert mine.exists()


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="Windows has no modes")
def test_a_cache_that_is_not_trusted_is_said_with_the_remedy(filled_cache: Path) -> None:
    (filled_cache / "emulator").chmod(0o777)
    assert f"others may write {filled_cache / 'emulator'}; chmod go-w {filled_cache / 'emulator'}" in said()
