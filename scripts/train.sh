#!/usr/bin/env bash
# Runs a recipe with the positional arguments of an original script; the scripts under the original names call it.
#   train.sh RECIPE "FLAG FLAG=DEFAULT ..." [ARGUMENT ...] [section.key=value ...]
# The i-th ARGUMENT is the value of the i-th FLAG (duet/train/flags.py); flags with a default go together: all of them are
# passed as soon as one is given. Environment:
#   MODEL TOWER VIDEO_TOWER PROJECTOR   what to train: checkpoint or language model, towers, mm_projector.bin
#   DATA IMAGES VIDEOS OUTPUT           files and folders
#   NPROC     processes on this machine (default: 1); TORCHRUN: more of torchrun's options, e.g. for several nodes
#   DEEPSPEED a DeepSpeed file; default for several processes: configs/deepspeed/zero$ZERO.json
#   PYTHON    the interpreter; DRY_RUN=1 prints the command and runs nothing
set -euo pipefail
recipe=$1
read -r -a flags <<<"$2"
shift 2

given=() words=()
for word in "$@"; do
    if [[ $word =~ ^(model|data|compression|training)\.[A-Za-z0-9_.]+= ]]; then words+=("$word"); else given+=("$word"); fi
done
if ((${#given[@]} > ${#flags[@]})); then
    echo "$0: ${#given[@]} arguments; at most ${#flags[@]} (${flags[*]}), then section.key=value" >&2
    exit 2
fi
together=0
for place in "${!given[@]}"; do
    if [[ ${flags[$place]} == *=* && -n ${given[$place]} ]]; then together=1; fi
done
options=()
for place in "${!flags[@]}"; do
    name=${flags[$place]%%=*} value=${given[$place]:-}
    if [[ -z $value && $together == 1 && ${flags[$place]} == *=* ]]; then value=${flags[$place]#*=}; fi
    if [[ -n $value ]]; then options+=("--$name" "$value"); fi
done
set_by() { # VARIABLE section.key
    if [[ -n ${!1:-} ]]; then options+=("$2=${!1}"); fi
}
set_by MODEL model.model_name_or_path
set_by TOWER model.vision_tower
set_by VIDEO_TOWER model.video_tower
set_by PROJECTOR model.projector
set_by DATA data.data_path
set_by IMAGES data.image_folder
set_by VIDEOS data.video_folder
set_by OUTPUT training.output_dir
processes=${NPROC:-1}
if ((processes > 1)) || [[ -n ${TORCHRUN:-} ]]; then
    read -r -a more <<<"${TORCHRUN:---standalone}"
    launch=(torchrun "${more[@]}" --nproc_per_node "$processes")
    DEEPSPEED=${DEEPSPEED-configs/deepspeed/zero${ZERO:-2}.json}
else
    launch=("${PYTHON:-python}")
fi
set_by DEEPSPEED training.deepspeed
command=("${launch[@]}" -m duet.cli.main train "$recipe" ${options[@]+"${options[@]}"} ${words[@]+"${words[@]}"})
if [[ ${DRY_RUN:-} == 1 ]]; then
    echo "${command[*]}"
    exit 0
fi
cd "$(dirname "$0")/.."
exec "${command[@]}"
