#!/usr/bin/env bash
# Installs the wheels into a fresh environment outside the checkout and uses them as a stranger would: the small model,
# a question, a grid by name, the aliases, and what `duet doctor` says of a name that two projects install.
#   bash scripts/wheel.sh
set -euo pipefail
cd "$(dirname "$0")/.."
root="$PWD"
place="$(mktemp -d)"
trap 'rm -rf "$place"' EXIT
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false OMP_NUM_THREADS="${OMP_NUM_THREADS:-2}"

"${PYTHON:-python3}" -m venv "$place/venv"
python="$place/venv/bin/python"
for project in . packaging/mini packaging/aliases; do
    "$python" -m pip wheel -q --no-deps -w "$place/wheels" "$root/$project"
done
"$python" -m pip install -q --retries 10 --find-links "$place/wheels" "duet-vlm[mini]" duet-vlm-aliases
cd "$place"
PATH="$place/venv/bin:$PATH"

duet doctor
"$python" -c "
import duet, visionzip, llava.model.builder, qwen2_5_vl
from pathlib import Path
assert '$place' in duet.__file__, duet.__file__
from duet import shipped
from PIL import Image
draw, world = shipped.small_module('draw'), shipped.small_module('world')
Image.fromarray(draw.draw(world.sample_scene(world.rng(0, 'demo', 9)))).save('bar.png')
"
duet ask bar.png "What color is the bar?" --average 22 --compare
duet data fetch mini --count 4
duet sweep quickstart methods=[duet] tasks=[pope] limit=2
(duet viz bar.png "What color is the bar?" 2>&1 || true) | grep 'duet-vlm\[plot\]'

# another project that installs a package of the same name writes into the same folder
"$python" -m pip install -q --no-deps duet
if duet doctor > report.txt 2>&1; then
    echo "duet doctor did not see that two projects own the name duet" >&2
    exit 1
fi
grep "name duet" report.txt
echo "the wheels work outside the checkout"
