#!/usr/bin/env bash
# Trains the small world's two checkpoints from scratch: data, tower, captions, regions, questions in several phases,
# and two equal final phases, one with all tokens, one with DUET in the loop. Run it again to continue where it stopped.
set -euo pipefail
cd "$(dirname "$0")/../.."
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-2}" OMP_WAIT_POLICY=PASSIVE

runs=playground/mini/runs
data=playground/data/mini/train

[ -f "$data/data_hash.txt" ] || python -m playground.mini.generate train --count 40000
[ -f "$runs/tower/model.safetensors" ] || python -m playground.mini.train_tower --output "$runs/tower" --minutes 14
[ -f "$runs/init/model.safetensors" ] || python -m playground.mini.build_model --tower "$runs/tower" --output "$runs/init"

for recipe in mini_pretrain mini_regions mini_finetune mini_questions mini_questions2 mini_questions3 mini_questions4 \
    mini_finetune2 mini_final mini_final_duet; do
    [ -f "$runs/${recipe#mini_}/model.safetensors" ] || python -m duet.train.run "configs/train/$recipe.yaml" "$@"
done

publish() {
    python -m playground.mini.publish "playground/mini/checkpoints/$1" \
        tower pretrain regions finetune questions questions2 questions3 questions4 finetune2 "$2"
}
publish llava-mini final
publish llava-mini-duet final_duet
