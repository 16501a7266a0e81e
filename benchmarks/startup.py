"""How long a user waits: importing, asking for help, and the first iteration; medians of fresh processes.

python benchmarks/startup.py
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROUNDS = 9
MAIN = "from nstgpu.cli import main; main()"
EXAMPLES = Path(__file__).parents[1] / "examples"


def seconds(*arguments: str, rounds: int = ROUNDS) -> float:
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def first_iteration(rounds: int = 5) -> float:
    """From the start of the process until the first iteration at 256 px has been reported."""
    times = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(rounds):
            began = time.perf_counter()
            command = [sys.executable, "-c", MAIN, "run", str(EXAMPLES / "content.jpg"), str(EXAMPLES / "style.jpg")]
            command += ["--size", "256", "--iterations", "1", "--json", "-", "--quiet", "--force"]
            command += ["-o", f"{folder}/out.png"]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            assert process.stdout is not None
            assert json.loads(process.stdout.readline())["iteration"] == 1
            times.append(time.perf_counter() - began)
            process.wait()
    return statistics.median(times)


def main() -> None:
    bare, numpy = seconds("-c", "pass"), seconds("-c", "import numpy")
    package, everything = seconds("-c", "import nstgpu"), seconds("-c", "import nstgpu; nstgpu.StyleTransfer")
    print(f"python {bare:.3f} s, import numpy {numpy - bare:+.3f} s")
    print(f"import nstgpu {package - bare:+.3f} s; with StyleTransfer {everything - numpy:+.3f} s beyond numpy")
    print(f"nstgpu --help {seconds('-c', MAIN, '--help') - numpy:+.3f} s beyond numpy")
    print(f"first iteration at 256 px after {first_iteration():.2f} s")


if __name__ == "__main__":
    main()
