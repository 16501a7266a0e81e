"""What benchmarks/ say of what they measured. What they measure needs a GPU, or PyTorch."""

import json
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def record(side: str, size: int, seconds: float, how: str = "one graph", precision: str = "bf16") -> dict[str, object]:
    return {"event": "iteration", "side": side, "size": size, "precision": precision, "how": how, "step": False,
            "seconds": seconds}  # fmt: skip


def verdicts(tmp_path: Path, *records: dict[str, object]) -> list[str]:
    """The lines of gpu_goals, of what was measured."""
    path = tmp_path / "records.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in records) + '{"event": "cut')
    command = [sys.executable, str(BENCHMARKS / "gpu_goals.py"), "--measured", str(path), str(tmp_path / "absent")]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def test_verdicts_say_reached_or_missed_and_by_how_much(tmp_path: Path) -> None:
    found = verdicts(
        tmp_path,
        {"iteration": 1, "cost": 2.0},  # of a cost curve, which lies beside
        record("nstgpu", 512, 0.63e-3),
        record("nstgpu", 512, 0.9e-3, "launch by launch"),
        record("PyTorch", 512, 2.8e-3, "CUDA graph"),
        record("PyTorch", 512, 1.05e-3, "torch.compile, CUDA graph"),
        record("nstgpu", 512, 7.6e-3, precision="3xtf32"),
        {"event": "tiles", "size": 8192, "ratio": 1.6},
    )
    assert found == [
        "reached       one gradient, bf16, 512 px: 0.63 ms, 10% below the goal of 0.7 ms",
        "missed        the same, of PyTorch's best, 512 px: 0.6, 20% over the goal of 0.5",
        "missed        one gradient, fp32, 512 px: 7.6 ms, 100% over the goal of 3.8 ms",
        "reached       8192 px in tiles, time per pixel of 2048 px: 1.6, 0% below the goal of 1.6",
    ]


def test_without_torch_compile_no_ratio_is_given(tmp_path: Path) -> None:
    records = record("nstgpu", 1024, 2e-3), record("PyTorch", 1024, 11e-3, "CUDA graph")
    assert verdicts(tmp_path, *records) == [
        "reached       one gradient, bf16, 1024 px: 2 ms, 18% below the goal of 2.45 ms"
    ]


def test_the_report_refuses_a_stage_that_there_is_not() -> None:
    command = ["bash", str(BENCHMARKS / "gpu_report.sh"), "compare"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "there is no stage compare; choose among correctness iterations tiles" in done.stderr
