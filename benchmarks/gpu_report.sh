#!/usr/bin/env bash
# Everything worth knowing on a machine with an NVIDIA GPU, in four stages of less than 9 minutes each:
#
#     benchmarks/gpu_report.sh [check|compare|profile|sanitize]...
#
#   check     doctor, GPU tests, memory against its forecast, 8192 x 8192 px under 8 GiB, a picture in bf16 and in fp32
#   compare   PyTorch side by side (compare_pytorch.py)
#   profile   every operation in every precision, the host's share, and ncu on the three heaviest kernels
#   sanitize  compute-sanitizer: memcheck and racecheck
#
# Without a stage: all, in this order. Writes to $OUT, else benchmarks/results, step by step, so that a run that is killed
# leaves what it had: gpu_STAGE.md with date, GPU and driver, cuda_DATE.md with the comparison, the pictures, and all logs,
# profiles and cost curves in gpu_STAGES.tar.gz.
#
# Needs python3 with numpy, cupy, h5py, pillow, typer, rich, pytest and, to compare, torch; nothing is installed, and no
# setting of the GPU is changed.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
stages=("$@")
((${#stages[@]})) || stages=(check compare profile sanitize)
for stage in "${stages[@]}"; do
    case $stage in
        check | compare | profile | sanitize) ;;
        *)
            echo "there is no stage $stage; choose check, compare, profile or sanitize" >&2
            exit 2
            ;;
    esac
done

stage_seconds=520
out=$(mkdir -p "${OUT:-benchmarks/results}" && cd "${OUT:-benchmarks/results}" && pwd)
packed="$out/gpu_$(IFS=_ && echo "${stages[*]}").tar.gz"
python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
logs=$work/logs
mkdir "$logs" "$work/path"
ln -s "$PWD" "$work/path/nstgpu" # the folder of a clone is the package, whatever its name
export PYTHONPATH="$work/path${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
export python
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

check() {
    step "doctor" 30 nstgpu doctor
    step "GPU tests" 240 "$python" -m pytest -q -m gpu -p no:cacheprovider tests
    step "memory" 90 "$python" benchmarks/gpu_memory.py
    for precision in bf16 fp32; do
        step "picture $precision" 60 nstgpu run examples/content.jpg examples/style.jpg --device cuda --size 768 \
            --precision "$precision" --iterations 100 -o "$out/gpu_picture_$precision.png" \
            --json "$logs/cost_curve_$precision.jsonl"
    done
}

compare() {
    step "PyTorch" 515 "$python" benchmarks/compare_pytorch.py --device cuda --limit 480 \
        --markdown "$out/cuda_$(date -u +%Y-%m-%d).md" --json "$logs/compare_pytorch.jsonl"
}

profile() {
    local precision size heavy kernel
    for precision in bf16 3xtf32 fp32 tf32 fp16; do
        step "profile 512 $precision" 60 nstgpu profile --device cuda --precision "$precision" --size 512 --rounds 20 \
            --json "$logs/profile_512_$precision.json" --force
    done
    size=1024
    step "profile $size bf16" 60 nstgpu profile --device cuda --precision bf16 --size "$size" --rounds 20 \
        --json "$logs/profile_${size}_bf16.json" --force
    step "host time" 60 "$python" benchmarks/host_time.py
    if command -v ncu >/dev/null && [[ -s $logs/profile_512_bf16.json ]]; then
        read -ra heavy <<<"$(heaviest "$logs/profile_512_bf16.json")"
        for kernel in "${heavy[@]}"; do
            step "ncu $kernel" 60 ncu --clock-control none --section SpeedOfLight --section LaunchStats \
                --section Occupancy --section MemoryWorkloadAnalysis --section WarpStateStats \
                --kernel-name "$kernel" --launch-count 3 "$python" -c 'from nstgpu.cli import main; main()' \
                run examples/content.jpg examples/style.jpg --device cuda --precision bf16 --weights random:0 \
                --size 512 --scales 1 --iterations 1 -o "$work/profiled.png"
        done
    fi
}

sanitize() {
    local tool precision
    if ! command -v compute-sanitizer >/dev/null; then
        echo "compute-sanitizer is not installed" | tee -a "$report"
        return
    fi
    for tool in memcheck racecheck; do
        for precision in bf16 fp32; do
            step "$tool $precision" 125 compute-sanitizer --tool "$tool" --error-exitcode 9 "$python" \
                -c 'from nstgpu.cli import main; main()' run examples/content.jpg examples/style.jpg --device cuda \
                --precision "$precision" --weights random:0 --size 64 --scales 1 --iterations 2 \
                -o "$work/sanitized.png"
        done
    done
}

gpu=$(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader || echo "no GPU found")
commit=$(git rev-parse --short HEAD 2>/dev/null || echo "unknown")
for stage in "${stages[@]}"; do
    report="$out/gpu_$stage.md"
    ends=$((SECONDS + stage_seconds))
    {
        printf '# GPU report: %s\n\n%s, %s, commit %s\n' "$stage" "$(date -u +%Y-%m-%d)" "$gpu" "$commit"
        printf '\nState before: %s\n' "$(gpu_state 2>&1)"
    } >"$report"
    "$stage"
    printf '\nState after: %s\n' "$(gpu_state 2>&1)" >>"$report"
done

if ((${#failed[@]})); then
    printf -v list '%s, ' "${failed[@]}"
    echo "failed: ${list%, }" | tee -a "$report"
    exit 1
fi
echo "all steps passed"
