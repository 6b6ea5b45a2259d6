#!/usr/bin/env bash
# For scripts that test ours beside another project, in an environment of its own: `. scripts/env/own.sh`.
#   DUET_ENVIRONMENTS=~/venvs bash scripts/vllm.sh      where the environments are
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false

# own_environment NAME: makes it unless it is there; sets $venv, its folder, and $python.
own_environment() {
    venv="${DUET_ENVIRONMENTS:-${XDG_CACHE_HOME:-$HOME/.cache}/duet-vlm}/$1"
    python="$venv/bin/python"
    [ -x "$python" ] || "${PYTHON:-python3}" -m venv "$venv"
}

# add WORDS: pip install into it.
add() {
    "$python" -m pip install -q "$@"
}

# torchvision_on_cpu: makes torchvision's CUDA build, the only one on the package index, import beside torch for CPUs.
torchvision_on_cpu() {
    local site
    site="$("$python" -c "import site; print(site.getsitepackages()[0])")"
    cp scripts/env/torchvision_on_cpu.py "$site"
    echo "import torchvision_on_cpu" > "$site/torchvision_on_cpu.pth"
}
