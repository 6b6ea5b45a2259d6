#!/usr/bin/env bash
# Everything that only a GPU can show, in parts. Nothing is downloaded: models have random weights, made on the device.
#   bash scripts/gpu.sh                        all parts; a part whose results exist is not repeated
#   bash scripts/gpu.sh prefill questions      these parts
#   DEVICE=cpu bash scripts/gpu.sh             the same on a CPU, with narrow models
#   DEVICE=cpu SIZE=smoke bash scripts/gpu.sh  in a minute, for CI: does every part run?
# Parts: environment tests prefill batch16 families training questions batches gaps
# OUT: folder of the results (benchmarks/results/gpu). FORCE=1 repeats parts. Any DEVICE=cuda is CUDA or ROCm.
set -euo pipefail
cd "$(dirname "$0")/.."
device="${DEVICE:-cuda}" out="${OUT:-benchmarks/results/gpu}" python="${PYTHON:-python}"
if [ "$device" = cuda ]; then size=7b dtype=bfloat16 rounds=5; else size="${SIZE:-cpu}" dtype=float32 rounds=2; fi
if [ "${SIZE:-}" = smoke ]; then
    llava=smoke families="smoke-qwen2_5_vl" budgets=160 average=160 rounds=1
else
    llava="llava15-$size" families="llavanext-$size videollava-$size qwen2_5_vl-$size" budgets=192,128,64 average=64
fi
common=(--device "$device" --dtype "$dtype")
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
mkdir -p "$out"
parts=("$@")
[ $# -gt 0 ] || parts=(environment tests prefill batch16 families training questions batches gaps)

# measure NAME SCRIPT ARGS...: writes $out/NAME.json and .md, unless they are there
measure() {
    local name="$1" script="$2"
    shift 2
    if [ -s "$out/$name.json" ] && [ -z "${FORCE:-}" ]; then
        echo "$name: done"
        return
    fi
    "$python" "benchmarks/$script.py" "${common[@]}" "$@" --output "$out/$name.part.json"
    mv "$out/$name.part.json" "$out/$name.json"
    mv "$out/$name.part.md" "$out/$name.md"
}

for part in "${parts[@]}"; do
    SECONDS=0
    case "$part" in
    environment) "$python" -m duet.cli.main doctor --json >"$out/environment.json" || cat "$out/environment.json" ;;
    tests)
        if [ "$device" = cuda ]; then
            "$python" -m pytest -q -m gpu tests 2>&1 | tee "$out/tests.txt"
        else
            echo "tests: none without a GPU"
        fi
        ;;
    prefill) measure "prefill-$llava" prefill --shape "$llava" --budgets "$budgets" --repeats "$rounds" --parts prefill ;;
    batch16)
        measure "prefill-$llava-batch16" prefill --shape "$llava" --budgets "$budgets" --repeats "$rounds" \
            --parts prefill --batch-size "$([ "$device" = cuda ] && echo 16 || echo 2)" --methods none,duet
        ;;
    families)
        for shape in $families; do
            measure "prefill-$shape" prefill --shape "$shape" --repeats "$rounds" --parts prefill --methods none,duet
        done
        ;;
    # 300 tokens besides the visual ones, as the paper's Table 6 has them on average
    training)
        measure "training-$llava" prefill --shape "$llava" --budgets "$budgets" --repeats "$rounds" --parts training \
            --text 300 --batch-size "$([ "$device" = cuda ] && echo 4 || echo 1)"
        ;;
    questions) measure "questions-$llava" questions --shape "$llava" --budgets "${budgets%%,*}" --repeats "$rounds" ;;
    batches)
        measure "batches-$llava" batches --shape "$llava" --average "$average" --repeats "$rounds" \
            --sizes "$([ "$device" = cuda ] && echo 1,4,16,64 || echo 1,2)"
        ;;
    gaps) measure "gaps-$llava" gaps --shape "$llava" --average "$average" ;;
    *)
        echo "unknown part $part: environment tests prefill batch16 families training questions batches gaps" >&2
        exit 2
        ;;
    esac
    echo "$part: $SECONDS s"
done
