"""The training scripts under the original names: thin, and what they run is `duet train` with a valid recipe."""

from __future__ import annotations

from pathlib import Path

import pytest

from duet.train.run import read_recipe
from tests.scripts.test_scripts import SCRIPTS, dry_run

LLAVA = SCRIPTS / "llava" / "v1_5"
ALL = {
    LLAVA / "pdrop_train" / "pretrain.sh": "llava15_pretrain",
    LLAVA / "pdrop_train" / "finetune.sh": "llava15_finetune",
    LLAVA / "finetune_lora.sh": "llava15_finetune_lora",
    LLAVA / "finetune_qlora.sh": "llava15_finetune_qlora",
    SCRIPTS / "llava" / "v1_6" / "pdrop_train" / "pretrain.sh": "llavanext_pretrain",
    SCRIPTS / "llava" / "v1_6" / "pdrop_train" / "finetune.sh": "llavanext_finetune",
    SCRIPTS / "videollava" / "v1_5" / "pretrain.sh": "videollava_pretrain",
    SCRIPTS / "videollava" / "v1_5" / "finetune.sh": "videollava_finetune",
    SCRIPTS / "videollava" / "v1_5" / "finetune_lora.sh": "videollava_finetune_lora",
    SCRIPTS / "qwen" / "finetune.sh": "qwen2_5_vl_finetune",
}


@pytest.mark.parametrize("script", ALL, ids=lambda path: "/".join(path.parts[-3:]))
def test_every_script_runs_its_recipe(script: Path, tmp_path: Path) -> None:
    done = dry_run(script, "name", str(tmp_path), "training.bf16=false", PYTHON="python", MODEL="own/model")
    assert done.returncode == 0, done.stderr
    start = f"python -m duet.cli.main train configs/train/{ALL[script]}.yaml "
    assert done.stdout.startswith(start)
    words = done.stdout.removeprefix("python -m duet.cli.main train ").split()
    words[0] = str(SCRIPTS.parent / words[0])
    recipe, _ = read_recipe([*words, "--dry-run"])
    assert recipe.model.model_name_or_path == "own/model" and recipe.training.output_dir == str(tmp_path)
    assert recipe.training.run_name == "name"
    assert recipe.compression.method == "duet"


def test_positional_arguments_are_the_original_s() -> None:
    done = dry_run(
        LLAVA / "pdrop_train" / "finetune.sh",
        *("run", "out", "[8,16]", "[0.5,0.1]", "pre/mm_projector.bin", "72", "30"),
        *("training.max_steps=2", "data.data_path=rows.json"),
        NPROC="8",
        IMAGES="pictures",
    )
    assert done.stdout == (
        "torchrun --standalone --nproc_per_node 8 -m duet.cli.main train configs/train/llava15_finetune.yaml "
        "--run_name run --output_dir out --layer_list [8,16] --image_token_ratio_list [0.5,0.1] "
        "--pretrain_mm_mlp_adapter pre/mm_projector.bin --dominant_num 72 --context_num 30 --cluster_width 4 "
        "data.image_folder=pictures training.deepspeed=configs/deepspeed/zero3.json "
        "training.max_steps=2 data.data_path=rows.json\n"
    )
    nodes = dry_run(
        LLAVA / "pdrop_train" / "pretrain.sh",
        NPROC="8",
        DEEPSPEED="own.json",
        TORCHRUN="--nnodes 4 --rdzv_backend c10d --rdzv_endpoint head:29502",
    )
    assert nodes.stdout == (
        "torchrun --nnodes 4 --rdzv_backend c10d --rdzv_endpoint head:29502 --nproc_per_node 8 -m duet.cli.main train "
        "configs/train/llava15_pretrain.yaml training.deepspeed=own.json\n"
    )


def test_too_many_arguments_are_refused() -> None:
    done = dry_run(LLAVA / "finetune_lora.sh", "run", "out", "more")
    assert done.returncode == 2 and "3 arguments; at most 2 (run_name output_dir)" in done.stderr
