#!/usr/bin/env bash
# Everything worth knowing on a machine with an NVIDIA GPU, in under 10 minutes: GPU tests, every kernel against its
# roofline and the reference, PyTorch side by side, one picture, and compute-sanitizer. Writes to $1, else $OUT, else
# benchmarks/results: gpu_report.md with date, GPU and driver, the profiles as JSON, the picture, and the logs.
#
# Needs python3 with numpy, cupy, h5py, pillow, typer, rich, pytest and, to compare, torch; nothing is installed.
set -uo pipefail
cd "$(dirname "$0")/.."
out=$(mkdir -p "${1:-${OUT:-benchmarks/results}}" && cd "${1:-${OUT:-benchmarks/results}}" && pwd)
python=${PYTHON:-python3}
links=$(mktemp -d)
trap 'rm -rf "$links"' EXIT
ln -s "$PWD" "$links/nstgpu" # the folder of a clone is the package, whatever its name
export PYTHONPATH="$links${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
nstgpu() { "$python" -c 'from nstgpu.cli import main; main()' "$@"; }
failed=()

step() { # step TITLE SECONDS COMMAND...: runs it under a limit, keeps its output, remembers a failure
    local title=$1 limit=$2 log
    shift 2
    log="$out/$(tr ' ' '_' <<<"$title").log"
    echo "== $title"
    local began=$SECONDS
    if ! (export -f nstgpu && export python && timeout "$limit" bash -c '"$@"' - "$@") >"$log" 2>&1; then
        failed+=("$title")
        tail -n 40 "$log"
    fi
    printf '\n## %s (%d s)\n\n```\n%s\n```\n' "$title" $((SECONDS - began)) "$(tail -n 80 "$log")" >>"$out/gpu_report.md"
}

gpu=$(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader || echo "no GPU found")
printf '# GPU report\n\n%s, %s, commit %s\n' "$(date -u +%Y-%m-%d)" "$gpu" "$(git rev-parse --short HEAD)" >"$out/gpu_report.md"

step "doctor" 30 nstgpu doctor
step "GPU tests" 300 "$python" -m pytest -q -m gpu -p no:cacheprovider tests
for size in 512 1024; do
    step "profile $size" 60 nstgpu profile --device cuda --size "$size" --rounds 20
    step "profile $size json" 60 nstgpu profile --device cuda --size "$size" --rounds 20 --json "$out/profile_$size.json"
done
for precision in tf32 3xtf32; do
    step "profile 512 $precision" 60 nstgpu profile --device cuda --precision "$precision" --size 512 --rounds 20
done
step "PyTorch" 120 "$python" benchmarks/compare_pytorch.py --device cuda --sizes 512 1024 --models vgg19 --rounds 20
step "picture" 60 nstgpu run examples/content.jpg examples/style.jpg --device cuda --size 768 --iterations 300 \
    -o "$out/gpu_picture.png" --json "$out/gpu_run.jsonl"
if command -v compute-sanitizer >/dev/null; then
    small=(-c 'from nstgpu.cli import main; main()' run examples/content.jpg examples/style.jpg --device cuda --size 64)
    for tool in memcheck racecheck; do
        step "$tool" 90 compute-sanitizer --tool "$tool" --error-exitcode 9 "$python" "${small[@]}" --iterations 1 \
            -o "$out/sanitized.png"
    done
fi

if ((${#failed[@]})); then
    echo "failed: ${failed[*]}" | tee -a "$out/gpu_report.md"
    exit 1
fi
echo "all steps passed"
