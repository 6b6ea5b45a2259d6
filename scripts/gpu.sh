#!/usr/bin/env bash
# Everything that only a GPU can show, in parts. Nothing is downloaded: models have random weights, made on the device.
#   bash scripts/gpu.sh                              all parts; results that are there are not measured again
#   bash scripts/gpu.sh prefill questions            these parts
#   bash scripts/gpu.sh --device cpu                 the same on a CPU, with narrow models
#   bash scripts/gpu.sh --device cpu --size smoke    in a few minutes, for CI: does every part run?
# Parts, the most important first: environment tests prefill batch16 questions training batches families room gaps
# graphs decoding
# --out FOLDER: of the results (benchmarks/results/gpu). --limit SECONDS: of one measurement (150; on a CPU 3600).
# --force repeats what is done. Any cuda device is CUDA or ROCm. A part that fails is reported, the others run, and the
# exit code is 1.
set -uo pipefail
cd "$(dirname "$0")/.."
all=(environment tests prefill batch16 questions training batches families room gaps graphs decoding)
device="${DEVICE:-cuda}" size="${SIZE:-}" out="${OUT:-benchmarks/results/gpu}" force="${FORCE:-}" limit="${LIMIT:-}"
python="${PYTHON:-python}" parts=() failed=()
while [ $# -gt 0 ]; do
    case "$1" in
    --device | --size | --out | --limit)
        [ $# -gt 1 ] || { echo "$1 needs a value" >&2; exit 2; }
        declare "${1#--}=$2"
        shift
        ;;
    --force) force=1 ;;
    *)
        [[ " ${all[*]} " == *" $1 "* ]] || { echo "unknown part $1: ${all[*]}" >&2; exit 2; }
        parts+=("$1")
        ;;
    esac
    shift
done
[ ${#parts[@]} -gt 0 ] || parts=("${all[@]}")
case "$device" in
cuda) size="${size:-7b}" dtype=bfloat16 rounds=3 clock=wall limit="${limit:-150}" ;;
cpu) size="${size:-cpu}" dtype=float32 rounds=2 clock=process limit="${limit:-3600}" ;;
*) echo "--device $device: choose cuda (CUDA or ROCm) or cpu" >&2; exit 2 ;;
esac
budgets=192,128,64 average=64 llava="llava15-$size" families="llavanext-$size videollava-$size qwen2_5_vl-$size"
ways=growing,fixed first=eager sizes=1,2,4 wide=2 trained=1 asked=6 backend=inductor
if [ "$device" = cuda ]; then
    ways+=,compiled first+=,compiled sizes=1,4,16,64 wide=16 trained=4 asked=18 families+=" qwen3_vl-8b"
fi
if [ "$size" = smoke ]; then
    llava=smoke families="smoke-qwen2_5_vl" budgets=160 average=160 rounds=1 sizes=1,2
    first=eager,compiled backend=eager # no code is made, but all is traced
fi
common=(--device "$device" --dtype "$dtype" --clock "$clock")
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false PYTHONUNBUFFERED=1
mkdir -p "$out" || exit 2

# measure NAME SCRIPT ARGS...: writes $out/NAME.json and .md, unless they are there; each in a process of its own, so
# its memory is free again, however it ends
measure() {
    local name="$1" script="$2"
    shift 2
    if [ -s "$out/$name.json" ] && [ -z "$force" ]; then
        echo "$name: done"
        return 0
    fi
    timeout "$limit" "$python" "benchmarks/$script.py" "$@" --output "$out/$name.part.json" || return 1
    mv "$out/$name.part.md" "$out/$name.md" && mv "$out/$name.part.json" "$out/$name.json"
}

# the same, with time for the compiler
slow() { limit=$((limit + 150)) measure "$@"; }

prefill() {
    local name="$1" shape="$2"
    shift 2
    measure "$name" prefill "${common[@]}" --shape "$shape" --repeats "$rounds" "$@"
}

run_part() {
    local shape kind result=0
    case "$1" in
    environment)
        "$python" -m duet.cli.main doctor --json >"$out/environment.json" && return 0
        cat "$out/environment.json"
        return 1
        ;;
    tests)
        if [ "$device" = cuda ]; then
            timeout "$limit" "$python" -m pytest -q -m gpu tests/gpu tests/duet/test_edit.py tests/duet/ops 2>&1 |
                tee "$out/tests.txt"
        else
            echo "tests: none without a GPU"
        fi
        ;;
    prefill) prefill "prefill-$llava" "$llava" --budgets "$budgets" --parts prefill ;;
    batch16)
        prefill "prefill-$llava-batch16" "$llava" --budgets "$budgets" --parts prefill --batch-size "$wide" \
            --methods none,duet
        ;;
    families)
        for shape in $families; do
            prefill "prefill-$shape" "$shape" --parts prefill --methods none,duet || result=1
        done
        return "$result"
        ;;
    # with the optimizer's update, and 300 tokens besides the visual ones, as the paper's Table 6 has them on average
    training)
        for kind in full lora projector; do
            prefill "training-$kind-$llava" "$llava" --budgets "$budgets" --parts training --text 300 --train "$kind" \
                --batch-size "$trained" --methods none,duet || result=1
        done
        return "$result"
        ;;
    questions)
        measure "questions-$llava" questions "${common[@]}" --shape "$llava" --budgets "$budgets" --repeats "$rounds" \
            --batch-size "$asked"
        ;;
    batches)
        measure "batches-$llava" batches "${common[@]}" --shape "$llava" --budgets "$budgets" --repeats "$rounds" \
            --sizes "$sizes"
        ;;
    room) measure room room ;;
    # these two last, because compiling takes minutes; a narrow model is not compiled for a CPU, which says nothing about
    # graphs
    graphs)
        slow "graphs-$llava" graphs "${common[@]}" --shape "$llava" --budgets "$average" --repeats 5 --ways "$first" \
            --backend "$backend"
        ;;
    decoding)
        slow "decoding-$llava" decoding "${common[@]}" --shape "$llava" --budgets "$average" --repeats "$rounds" \
            --ways "$ways"
        ;;
    gaps) measure "gaps-$llava" gaps "${common[@]}" --shape "$llava" --average "$average" ;;
    esac
}

begun=$(date +%s)
for part in "${parts[@]}"; do
    SECONDS=0
    run_part "$part" || failed+=("$part")
    echo "$part: $SECONDS s, $(($(date +%s) - begun)) s in all"
done
if [ ${#failed[@]} -gt 0 ]; then
    echo "failed or out of time: ${failed[*]}; the same command goes on from here" >&2
    exit 1
fi
