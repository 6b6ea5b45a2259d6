#!/usr/bin/env bash
# Trains the small worlds' checkpoints from nothing and evaluates them: data, tower, captions, regions, questions in several
# phases, equal final phases with all tokens and with DUET in the loop, a budget per step (elastic), the hops world, and
# clips. Run it again to continue where it stopped; playground/mini/runs/times.tsv has the minutes of every step.
#   bash scripts/mini/train.sh                                # everything: about five hours on 2 idle cores
#   bash scripts/mini/train.sh training.use_cpu=false         # arguments go to the recipes: here, train on a GPU
#   WORLDS="first" bash scripts/mini/train.sh                 # without hops and video
set -euo pipefail
cd "$(dirname "$0")/../.."
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-2}" OMP_WAIT_POLICY=PASSIVE TOKENIZERS_PARALLELISM=false

runs=playground/mini/runs
data=playground/data
worlds="${WORLDS:-first hops video}"
mkdir -p "$runs"

step() { # NAME FILE COMMAND...: runs the command unless its result is there, and notes the minutes
    local name=$1 result=$2 began=$SECONDS
    shift 2
    [ -f "$result" ] && return
    "$@"
    printf '%s\t%.1f\n' "$name" "$(((SECONDS - began) * 10 / 60))e-1" >>"$runs/times.tsv"
}
recipes() { # NAME...: trains by the recipe mini_NAME
    local name
    for name; do
        step "$name" "$runs/$name/model.safetensors" python -m duet.train.run "configs/train/mini_$name.yaml" "${overrides[@]}"
    done
}
publish() { # CHECKPOINT PHASE...
    python -m playground.mini.publish "playground/mini/checkpoints/$1" "${@:2}"
}
overrides=("$@")

common=(tower pretrain regions finetune questions questions2 questions3 questions4 finetune2)
step data "$data/mini/train/data_hash.txt" python -m playground.mini.generate train --count 40000
step tower "$runs/tower/model.safetensors" python -m playground.mini.train_tower --output "$runs/tower" --minutes 14
step init "$runs/init/model.safetensors" \
    python -m playground.mini.build_model --tower "$runs/tower" --output "$runs/init"
recipes pretrain regions finetune questions questions2 questions3 questions4 finetune2 final final_duet
publish llava-mini "${common[@]}" final
publish llava-mini-duet "${common[@]}" final_duet
step final_lora "$runs/final_lora/adapter_model.safetensors" \
    python -m duet.train.run configs/train/mini_final_lora.yaml "${overrides[@]}"
step final_lora_merged "$runs/final_lora_merged/model.safetensors" \
    duet train merge "$runs/final_lora" --output "$runs/final_lora_merged"
recipes elastic # from the published llava-mini
publish llava-mini-elastic elastic

if [[ " $worlds " == *" hops "* ]]; then
    hops=$data/mini_hops
    step hops_data "$hops/train/data_hash.txt" python -m playground.mini.generate train --world hops --count 16000
    step hops_tower "$runs/hops_tower/model.safetensors" python -m playground.mini.train_tower \
        --output "$runs/hops_tower" --world hops --start playground/mini/checkpoints/llava-mini \
        --steps 350 --minutes 600 --lr 7e-4 --batch 48
    step hops_init "$runs/hops_init/model.safetensors" python -m playground.mini.build_model \
        --tower "$runs/hops_tower" --start playground/mini/checkpoints/llava-mini --output "$runs/hops_init"
    recipes hops_short hops_full
    publish llava-mini-hops --data playground/data/mini_hops hops_tower hops_short hops_full
fi
if [[ " $worlds " == *" video "* ]]; then
    step video "$runs/video/model.safetensors" python -m playground.mini.train_video --output "$runs/video"
    publish llava-mini-video video
fi

python -m playground.mini.generate eval --count 180
duet sweep configs/eval/elastic.yaml
duet report outputs/elastic
if [[ " $worlds " == *" hops "* ]]; then
    python -m playground.mini.generate eval --world hops
    duet sweep configs/eval/hops.yaml
    duet report outputs/hops
fi
if [[ " $worlds " == *" video "* ]]; then
    python -m playground.mini.generate videos --count 180
    duet sweep configs/eval/quickstart_video.yaml
    duet report outputs/quickstart_video
fi
