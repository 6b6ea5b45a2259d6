#!/usr/bin/env bash
# Trains the small worlds' checkpoints from nothing and evaluates them: data, tower, captions, regions, questions in several
# phases, equal final phases with all tokens, with DUET in the loop and with LoRA, a budget per step (elastic), the hops
# world, and clips. Run it again to continue where it stopped; playground/mini/runs/times.tsv has the minutes of every step.
# It replaces playground/mini/checkpoints.
#   bash scripts/mini/train.sh                                # everything: about five hours on 2 idle cores
#   SHARE=0.02 bash scripts/mini/train.sh                     # a rehearsal: the same chain with that share of the steps
#   bash scripts/mini/train.sh training.use_cpu=false         # arguments go to the recipes: here, train on a GPU
#   WORLDS="first" bash scripts/mini/train.sh                 # without hops and video
set -euo pipefail
cd "$(dirname "$0")/../.."
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-2}" OMP_WAIT_POLICY=PASSIVE TOKENIZERS_PARALLELISM=false

runs=playground/mini/runs
data=playground/data
worlds="${WORLDS:-first hops video}"
share="${SHARE:-1}"
overrides=("$@")
mkdir -p "$runs"

scaled() { # NUMBER [LEAST]: NUMBER times SHARE, rounded up
    awk -v number="$1" -v share="$share" -v least="${2:-1}" \
        'BEGIN { n = number * share; n = int(n) + (n > int(n)); print n < least ? least : n }'
}
step() { # NAME RESULT COMMAND...: runs the command unless its result is there, and notes the minutes
    local name=$1 result=$2 began=$SECONDS
    shift 2
    [ -e "$result" ] && return
    "$@"
    printf '%s\t%.1f\n' "$name" "$(((SECONDS - began) * 10 / 60))e-1" >>"$runs/times.tsv"
}
train() { # NAME RESULT: trains by the recipe mini_NAME
    local recipe=configs/train/mini_$1.yaml steps
    steps=$(awk '$1 == "max_steps:" { print $2 }' "$recipe")
    step "$1" "$runs/$1/$2" \
        python -m duet.train.run "$recipe" "training.max_steps=$(scaled "$steps" 4)" "${overrides[@]}"
}
recipes() { # NAME...
    local name
    for name; do train "$name" model.safetensors; done
}
publish() { # CHECKPOINT PHASE...
    python -m playground.mini.publish "playground/mini/checkpoints/$1" "${@:2}"
}
table() { # GRID
    step "table_$1" "outputs/$1/table.md" sweep "$1"
}
sweep() { # GRID: runs it, and prints its table
    duet sweep "configs/eval/$1.yaml"
    duet report "outputs/$1"
}

common=(tower pretrain regions finetune questions questions2 questions3 questions4 finetune2)
step data "$data/mini/train/data_hash.txt" python -m playground.mini.generate train --count "$(scaled 40000 400)"
step tower "$runs/tower/model.safetensors" \
    python -m playground.mini.train_tower --output "$runs/tower" --minutes "$(scaled 14)"
step init "$runs/init/model.safetensors" \
    python -m playground.mini.build_model --tower "$runs/tower" --output "$runs/init"
recipes pretrain regions finetune questions questions2 questions3 questions4 finetune2 final final_duet
publish llava-mini "${common[@]}" final
publish llava-mini-duet "${common[@]}" final_duet
train final_lora adapter_model.safetensors
step final_lora_merged "$runs/final_lora_merged/model.safetensors" \
    duet train merge "$runs/final_lora" --output "$runs/final_lora_merged"
recipes elastic # from the published llava-mini
publish llava-mini-elastic elastic

if [[ " $worlds " == *" hops "* ]]; then
    hops=$data/mini_hops
    step hops_data "$hops/train/data_hash.txt" \
        python -m playground.mini.generate train --world hops --count "$(scaled 16000 400)"
    step hops_tower "$runs/hops_tower/model.safetensors" python -m playground.mini.train_tower \
        --output "$runs/hops_tower" --world hops --start playground/mini/checkpoints/llava-mini \
        --steps "$(scaled 350 4)" --minutes 600 --lr 7e-4 --batch 48
    step hops_init "$runs/hops_init/model.safetensors" python -m playground.mini.build_model \
        --tower "$runs/hops_tower" --start playground/mini/checkpoints/llava-mini --output "$runs/hops_init"
    recipes hops_short hops_full
    publish llava-mini-hops --data playground/data/mini_hops hops_tower hops_short hops_full
fi
if [[ " $worlds " == *" video "* ]]; then
    step video "$runs/video/model.safetensors" \
        python -m playground.mini.train_video --output "$runs/video" --steps "$(scaled 450 4)"
    publish llava-mini-video video
fi

step eval_data "$data/mini/eval/data_hash.txt" python -m playground.mini.generate eval --count "$(scaled 180 12)"
table training
table elastic
if [[ " $worlds " == *" hops "* ]]; then
    step hops_eval_data "$hops/eval/data_hash.txt" \
        python -m playground.mini.generate eval --world hops --count "$(scaled 1050 42)"
    table hops
fi
if [[ " $worlds " == *" video "* ]]; then
    step video_eval_data "$data/mini/videos/data_hash.txt" \
        python -m playground.mini.generate videos --count "$(scaled 180 12)"
    table quickstart_video
fi
printf 'minutes of every step:\n'
cat "$runs/times.tsv"
