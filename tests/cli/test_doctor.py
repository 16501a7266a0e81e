"""`nstgpu doctor`: everything it names, with and without what it looks for."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from nstgpu.cli import app
from nstgpu.kernels import diagnose
from nstgpu.kernels.cpu.openblas import find_openblas
from nstgpu.kernels.cuda.runtime import driver
from nstgpu.kernels.cuda.runtime.driver import Driver, Gpu


@pytest.fixture(autouse=True)
def _blas_as_it_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)
    monkeypatch.setattr(driver, "has_nvidia_card", lambda: False)


def doctor() -> dict[str, Any]:
    result = CliRunner().invoke(app, ["doctor", "--json"])
    assert result.exit_code == 0, result.output
    return dict(json.loads(result.stdout))


def test_doctor_names_everything() -> None:
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 0
    for name in ("host", "BLAS", "CuPy", "NVRTC", "emulator", "kernel cache", "weights", "auto", "to mend"):
        assert name in result.stdout
    assert "GPU" in result.stdout or "driver" in result.stdout


def test_without_a_gpu_the_cpu_is_chosen_and_nothing_need_be_mended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnose, "cuda_problem", lambda: "no NVIDIA driver was found on this machine")
    report = doctor()
    assert report["auto"] == "cpu"
    assert report["why"] == "no NVIDIA driver was found on this machine"
    assert report["remedy"] == ""


def test_with_a_gpu_but_no_cupy_the_remedy_is_one_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnose, "cuda_problem", lambda: "CuPy is not installed: pip install 'nstgpu[cuda12]'")
    monkeypatch.setattr(diagnose, "ask_driver", lambda: Driver((12, 8), 0, (Gpu("NVIDIA Test", 8 << 30, (8, 0)),)))
    monkeypatch.setattr(driver, "installed_cupy", dict)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    report = doctor()
    assert report["auto"] == "cpu"
    assert report["remedy"] == "pip install 'nstgpu[cuda12]'"
    assert {"problem": "CuPy is not installed", "remedy": "pip install 'nstgpu[cuda12]'"} in report["to_mend"]


@pytest.mark.skipif(find_openblas() is None, reason="NumPy computes with another BLAS than OpenBLAS")
def test_a_blas_that_is_told_its_processor_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnose, "cuda_problem", lambda: "no NVIDIA driver was found on this machine")
    assert doctor()["remedy"] == ""
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    assert doctor()["remedy"] == "unset OPENBLAS_CORETYPE"


def test_a_home_that_cannot_be_written_is_a_line_of_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home").write_text("")
    monkeypatch.delenv("NSTGPU_CACHE_DIR", raising=False)
    monkeypatch.delenv("NSTGPU_WEIGHTS_DIR", raising=False)
    for name in ("HOME", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "300")
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 0, result.output
    mend = result.stdout[result.stdout.index("to mend") :]
    assert "compiled kernels cannot be kept: " in mend
    assert "set NSTGPU_CACHE_DIR to a folder of your own" in mend
