#!/usr/bin/env bash
# Everything worth knowing on a machine with an NVIDIA GPU, in stages of at most 4 minutes, the most telling first:
#
#     benchmarks/gpu_report.sh [correctness|iterations|tiles|operations|memory|sanitizer]...
#
#   correctness  doctor, GPU tests, a picture in bf16 and in fp32
#   iterations   one gradient against torch.compile at 512 and 1024 px, ours at 256 and 2048 px and accurate to fp32, and
#                a picture from the shell
#   tiles        every tile and slicing of the convolutions and Grams on Hopper (gpu_tiles.py)
#   operations   every operation by itself against PyTorch's, profiles, the host's share, ncu on the heaviest kernels
#   memory       against its forecast and PyTorch's, 8192 x 8192 px under 8 GiB
#   sanitizer    compute-sanitizer: memcheck and racecheck
#
# Without a stage: all, in this order. Each stage ends by the goals that it measured: reached or missed, by how much.
# Writes to $OUT, else benchmarks/results, step by step, so that a run that is killed leaves what it had: gpu_STAGES.md,
# and all logs, records, profiles and pictures in gpu_STAGES.tar.gz. $STAGE_SECONDS (240) limits a stage. Compiled
# kernels stay beside $OUT for the next stage.
#
# Needs python3 with numpy, cupy, h5py, pillow, typer, rich, pytest and, to compare, torch; nothing is installed, and no
# setting of the GPU is changed.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
known=(correctness iterations tiles operations memory sanitizer)
stages=("$@")
((${#stages[@]})) || stages=("${known[@]}")
for stage in "${stages[@]}"; do
    if [[ " ${known[*]} " != *" $stage "* ]]; then
        echo "there is no stage $stage; choose among ${known[*]}" >&2
        exit 2
    fi
done

stage_seconds=${STAGE_SECONDS:-240}
out=$(mkdir -p "${OUT:-benchmarks/results}" && cd "${OUT:-benchmarks/results}" && pwd)
name=gpu_$(IFS=_ && echo "${stages[*]}")
report=$out/$name.md packed=$out/$name.tar.gz
export python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
logs=$work/logs
mkdir "$logs" "$work/path"
ln -s "$PWD" "$work/path/nstgpu" # the folder of a clone is the package, whatever its name
export PYTHONPATH="$work/path${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
if [[ -n ${OUT:-} ]] && mkdir -p "$(dirname "$out")/nstgpu_report_cache" 2>/dev/null; then
    cache=$(dirname "$out")/nstgpu_report_cache
    export NSTGPU_CACHE_DIR=${NSTGPU_CACHE_DIR:-$cache/nstgpu}
    export TORCHINDUCTOR_CACHE_DIR=${TORCHINDUCTOR_CACHE_DIR:-$cache/inductor} TRITON_CACHE_DIR=${TRITON_CACHE_DIR:-$cache/triton}
fi
if ! "$python" -c "import platformdirs" 2>/dev/null; then # a bare machine has the rest, but not this one
    echo "platformdirs is not installed; a stand-in is used"
    cat >"$work/path/platformdirs.py" <<'PY'
"""Stands in for platformdirs in gpu_report.sh."""

from pathlib import Path


def user_cache_path(name: str, appauthor: object = None) -> Path:
    return Path.home() / ".cache" / name


def user_data_path(name: str, appauthor: object = None) -> Path:
    return Path.home() / ".local/share" / name
PY
fi
nstgpu() { "$python" -c 'from nstgpu.cli import main; main()' "$@"; }
export -f nstgpu
failed=()

step() { # step TITLE SECONDS COMMAND...: runs it under a limit, keeps its output, remembers a failure
    local title=$1 limit=$2 log began=$SECONDS status
    shift 2
    log="$logs/$(tr ' ' '_' <<<"$title").log"
    echo "== $title"
    ((limit < ends - SECONDS)) || limit=$((ends - SECONDS))
    if ((limit < 5)); then
        echo "not run: no time is left in this stage" | tee "$log"
        failed+=("$title")
    else
        timeout --kill-after=10 "$limit" bash -c '"$@"' - "$@" >"$log" 2>&1
        status=$?
        ((status != 124)) || echo "stopped after $limit s" >>"$log"
        if ((status)); then
            failed+=("$title")
            tail -n 40 "$log"
        fi
    fi
    printf '\n## %s (%d s)\n\n%s\n' "$title" $((SECONDS - began)) "$(tail -n 80 "$log" | sed 's/^/    /')" >>"$report"
    tar -C "$logs" -czf "$packed.part" . && mv "$packed.part" "$packed"
}

says() { # says TITLE LINES: the last lines of a step's log
    tail -n "$2" "$logs/$(tr ' ' '_' <<<"$1").log"
}

gpu_state() {
    nvidia-smi --query-gpu=pstate,clocks.sm,clocks.mem,power.draw,temperature.gpu --format=csv,noheader
}

heaviest() { # heaviest PROFILE: the kernels of the three slowest operations of different kernels
    "$python" - "$1" <<'PY'
import collections, json, sys

seconds = collections.Counter()
for row in json.load(open(sys.argv[1]))["rows"]:
    for kernel in row["kernels"][:1]:
        seconds[kernel] += row["seconds"] or 0
print(*(kernel for kernel, _ in seconds.most_common(3)))
PY
}

pictures() { # pictures RECORDS: the wall's seconds of a 512 px picture, three times; a line of JSON each
    local began turn
    for turn in 1 2 3; do
        began=$(date +%s%N)
        nstgpu run examples/content.jpg examples/style.jpg --device cuda --weights mini --size 512 --scales 1 \
            --iterations 500 -o "$work/picture_$turn.png" --force || return
        "$python" -c 'import json, sys; print(json.dumps({"event": "picture", "size": 512, "seconds": int(sys.argv[1]) / 1e9}))' \
            $(($(date +%s%N) - began)) | tee -a "$1"
    done
}
export work
export -f pictures

correctness() {
    local parallel=() precision
    "$python" -c "import xdist" 2>/dev/null && parallel=(-n 8)
    step "doctor" 60 nstgpu doctor
    says "doctor" 12
    step "GPU tests" 150 "$python" -m pytest -q -m gpu -p no:cacheprovider "${parallel[@]}" tests
    says "GPU tests" 3
    for precision in bf16 fp32; do
        step "picture $precision" 60 nstgpu run examples/content.jpg examples/style.jpg --device cuda --size 768 \
            --precision "$precision" --iterations 100 -o "$logs/gpu_picture_$precision.png" \
            --json "$logs/cost_curve_$precision.jsonl"
    done
}

iterations() {
    step "picture from the shell" 40 pictures "$logs/picture.jsonl"
    says "picture from the shell" 1
    step "PyTorch" 235 "$python" benchmarks/compare_pytorch.py --device cuda --what goals \
        --limit $((ends - SECONDS > 20 ? ends - SECONDS - 10 : 10)) \
        --markdown "$logs/compare.md" --json "$logs/compare_pytorch.jsonl"
}

tiles() {
    step "tiles" 235 "$python" benchmarks/gpu_tiles.py --json "$logs/tiles.jsonl" --limit $((ends - SECONDS - 30))
}

operations() {
    local precision heavy kernel
    for precision in bf16 3xtf32 tf32; do
        step "profile 512 $precision" 40 nstgpu profile --device cuda --precision "$precision" --size 512 --rounds 20 \
            --json "$logs/profile_512_$precision.json" --force
    done
    step "operations" 150 "$python" benchmarks/compare_pytorch.py --device cuda --what operations --limit 140 \
        --markdown "$logs/operations.md" --json "$logs/operations.jsonl"
    step "host time" 60 "$python" benchmarks/host_time.py
    if command -v ncu >/dev/null && [[ -s $logs/profile_512_bf16.json ]]; then
        read -ra heavy <<<"$(heaviest "$logs/profile_512_bf16.json")"
        for kernel in "${heavy[@]}"; do
            step "ncu $kernel" 40 ncu --clock-control none --section SpeedOfLight --section LaunchStats \
                --section Occupancy --section MemoryWorkloadAnalysis --section WarpStateStats \
                --kernel-name "$kernel" --launch-count 3 "$python" -c 'from nstgpu.cli import main; main()' \
                run examples/content.jpg examples/style.jpg --device cuda --precision bf16 --weights random:0 \
                --size 512 --scales 1 --iterations 1 -o "$work/profiled.png" --force
        done
    fi
}

memory() {
    step "memory" 120 "$python" benchmarks/gpu_memory.py --json "$logs/memory.jsonl"
    says "memory" 3
    step "memory of PyTorch" 110 "$python" benchmarks/compare_pytorch.py --device cuda --what memory --limit 100 \
        --markdown "$logs/memory.md" --json "$logs/compare_memory.jsonl"
}

sanitizer() {
    local tool precision
    if ! command -v compute-sanitizer >/dev/null; then
        echo "compute-sanitizer is not installed" | tee -a "$report"
        return
    fi
    for tool in memcheck racecheck; do
        for precision in bf16 fp32; do
            step "$tool $precision" 115 compute-sanitizer --tool "$tool" --error-exitcode 9 "$python" \
                -c 'from nstgpu.cli import main; main()' run examples/content.jpg examples/style.jpg --device cuda \
                --precision "$precision" --weights random:0 --size 64 --scales 1 --iterations 2 \
                -o "$work/sanitized.png" --force
            says "$tool $precision" 1
        done
    done
}

gpu=$(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader || echo "no GPU found")
commit=$(git rev-parse --short HEAD 2>/dev/null || echo "unknown")
printf '# GPU report\n\n%s, %s, commit %s\n' "$(date -u +%Y-%m-%d)" "$gpu" "$commit" >"$report"
for stage in "${stages[@]}"; do
    ends=$((SECONDS + stage_seconds)) began=$SECONDS
    printf '\n# %s\n\nState before: %s\n' "$stage" "$(gpu_state 2>&1)" >>"$report"
    "$stage"
    printf '\nState after: %s\n' "$(gpu_state 2>&1)" >>"$report"
    echo "-- $stage took $((SECONDS - began)) s"
done
verdict=$("$python" benchmarks/gpu_goals.py --measured "$logs"/*.jsonl 2>&1)
printf '\n# Goals\n\n%s\n' "${verdict:-none was measured}" | tee -a "$report"
tar -C "$logs" -czf "$packed.part" . && mv "$packed.part" "$packed"

if ((${#failed[@]})); then
    printf -v list '%s, ' "${failed[@]}"
    echo "failed: ${list%, }" | tee -a "$report"
    exit 1
fi
echo "all steps passed"
