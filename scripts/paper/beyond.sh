#!/usr/bin/env bash
# The cheapest proof of duet_cover on a real model: methods and shapes of docs/beyond.md on 500 questions of each benchmark,
# then the tables with paired intervals. Finished runs are not repeated.
#   bash scripts/paper/beyond.sh [llava|qwen|video|mini]
# llava: LLaVA-1.5-7B on POPE, GQA and TextVQA; qwen: Qwen2.5-VL-7B; video: Video-LLaVA-7B; mini: a reduced form on the
# small model. Overrides: MODEL DATA OUTPUT LIMIT (questions of a benchmark) BATCH_SIZE NPROC; QUESTIONS_PER_SECOND of one
# device for the estimate; PYTHON names the interpreter. DRY_RUN=1 prints the commands instead of running them.
set -euo pipefail
cd "$(dirname "$0")/../.."
what="${1:-llava}"
case "$what" in
    llava) name=llava15 speed=8 runs=27 tasks=3 rules=beyond_llava15_rules renumber=1 ;;
    qwen) name=qwen25vl speed=4 runs=13 tasks=3 rules="" renumber="" ;;
    video) name=videollava speed=1.5 runs=16 tasks=3 rules="" renumber="" ;;
    mini) name=mini speed=50 runs=17 tasks=3 rules="" renumber=1 ;;
    *) echo "beyond.sh: unknown set '$what'; choose llava, qwen, video or mini" >&2; exit 2 ;;
esac
limit="${LIMIT:-$([ "$what" = mini ] && echo 20 || echo 500)}"
output="${OUTPUT:-outputs/beyond/$name}"
python="${PYTHON:-python}"
common=("limit=$limit")
[ -z "${MODEL:-}" ] || common+=("models.$name=$MODEL")
[ -z "${DATA:-}" ] || common+=("data=$DATA")
[ -z "${BATCH_SIZE:-}" ] || common+=("batch_size=$BATCH_SIZE")

run() {
    if [ -n "${DRY_RUN:-}" ]; then echo "$*"; else "$@"; fi
}
sweep() {
    if [ "${NPROC:-1}" -gt 1 ]; then
        run accelerate launch --num_processes "$NPROC" -m duet.cli.main sweep "$@" "${common[@]}"
    else
        run "$python" -m duet.cli.main sweep "$@" "${common[@]}"
    fi
}
table() { run "$python" -m duet.cli.main table paired "$@"; }

awk -v runs="$runs" -v tasks="$tasks" -v limit="$limit" -v speed="${QUESTIONS_PER_SECOND:-$speed}" -v devices="${NPROC:-1}" \
    'BEGIN { printf "about %d runs, %.1f hours at %g questions a second on each of %d device(s)\n", runs,
             runs * tasks * limit / speed / devices / 3600, speed, devices }' >&2

sweep "configs/eval/beyond_$name.yaml" "output=$output/kept"
[ -z "$renumber" ] || sweep "configs/eval/beyond_$name.yaml" switches.positions=renumber "output=$output/renumbered"
[ -z "$rules" ] || sweep "configs/eval/$rules.yaml" "output=$output/rules"

table --results "$output/kept" --against duet_cover --by-task
table --results "$output/kept" --against duet_cover@safe
[ -z "$renumber" ] || table --results "$output/renumbered" --versus "$output/kept" --by-task
[ -z "$rules" ] || table --results "$output/rules" --against cover --by-task
