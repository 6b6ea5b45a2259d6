#!/usr/bin/env bash
# The cheapest proof of duet_cover on a real model: the shape of the budget is measured without labels, then methods and
# shapes answer 500 questions of each benchmark, then come the tables with paired intervals. Finished runs are not repeated.
# docs/beyond.md has the rule by which the outcome decides the defaults, written before anybody ran this.
#   SAMPLES=samples.jsonl bash scripts/paper/beyond.sh [llava|qwen|video|mini]
# llava: LLaVA-1.5-7B on POPE, GQA and TextVQA; qwen: Qwen2.5-VL-7B; video: Video-LLaVA-7B on three video benchmarks; mini: a
# reduced form on the small model. SAMPLES: stratified questions for `duet schedule`; without it there is no calibrated shape.
# Overrides: MODEL DATA OUTPUT LIMIT (questions of a benchmark) BATCH_SIZE NPROC; QUESTIONS_PER_SECOND of one device, for the
# estimate; PYTHON names the interpreter. DRY_RUN=1 prints the commands instead of running them.
set -euo pipefail
cd "$(dirname "$0")/../.."
what="${1:-llava}"
case "$what" in
    llava) name=llava15 model=llava-hf/llava-1.5-7b-hf average=64 speed=8 limit=500 ;;
    qwen) name=qwen25vl model=Qwen/Qwen2.5-VL-7B-Instruct average=320 speed=4 limit=500 ;;
    video) name=videollava model=LanguageBind/Video-LLaVA-7B-hf average=136 speed=1.5 limit=500 ;;
    mini) name=mini model=playground/mini/checkpoints/llava-mini average=11.111 speed=50 limit=20 ;;
    *) echo "beyond.sh: unknown set '$what'; choose llava, qwen, video or mini" >&2; exit 2 ;;
esac
model="${MODEL:-$model}" limit="${LIMIT:-$limit}" output="${OUTPUT:-outputs/beyond/$name}" python="${PYTHON:-python}"
common=("limit=$limit" "models.$name=$model")
[ -z "${DATA:-}" ] || common+=("data=$DATA")
[ -z "${BATCH_SIZE:-}" ] || common+=("batch_size=$BATCH_SIZE")
shapes=()
[ -z "${SAMPLES:-}" ] || shapes=("budgets.calibrated={average: $average, shape: $output/calibrated.yaml}")

duet() {
    if [ -n "${DRY_RUN:-}" ]; then echo "$python -m duet.cli.main $*"; else "$python" -m duet.cli.main "$@"; fi
}
sweep() {
    if [ "${NPROC:-1}" -gt 1 ] && [ -z "${DRY_RUN:-}" ]; then
        accelerate launch --num_processes "$NPROC" -m duet.cli.main sweep "$@" "${common[@]}"
    else
        duet sweep "$@" "${common[@]}"
    fi
}
estimate() { # runs of all sweeps together
    awk -v runs="$1" -v limit="$limit" -v speed="${QUESTIONS_PER_SECOND:-$speed}" -v devices="${NPROC:-1}" 'BEGIN {
        printf "about %d runs of 3 benchmarks, %.1f hours at %g questions a second on each of %d device(s)\n",
            runs, runs * 3 * limit / speed / devices / 3600, speed, devices }' >&2
}

shape_count=4
[ "$what" != mini ] || shape_count=2
shape_count=$((shape_count + ${#shapes[@]})) kept=$((4 * shape_count + 1))
case "$what" in
    llava) estimate $((2 * (kept + shape_count) + 10)) ;;
    qwen) estimate "$kept" ;;
    video) estimate $((kept + shape_count)) ;;
    mini) estimate $((2 * kept)) ;;
esac

if [ -n "${SAMPLES:-}" ] && [ ! -f "$output/calibrated.yaml" ]; then
    duet schedule --model "$model" --method duet_cover --average "$average" --samples "$SAMPLES" --positions keep \
        --output "$output" --name calibrated
fi
sweep "configs/eval/beyond_$name.yaml" "output=$output/kept" ${shapes[@]+"${shapes[@]}"}
duet table paired --results "$output/kept" --against duet_cover --by-task
duet table paired --results "$output/kept" --against duet_cover@safe
case "$what" in
    llava | mini)
        sweep "configs/eval/beyond_$name.yaml" switches.positions=renumber "output=$output/renumbered" ${shapes[@]+"${shapes[@]}"}
        duet table paired --results "$output/renumbered" --versus "$output/kept" --by-task
        ;;
esac
if [ "$what" = llava ]; then
    sweep configs/eval/beyond_llava15_rules.yaml "output=$output/rules"
    duet table paired --results "$output/rules" --against cover --by-task
fi
