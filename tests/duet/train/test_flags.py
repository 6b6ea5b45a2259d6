"""The originals' flags: what they become in a recipe, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from duet.cli.main import main as command
from duet.config import ConfigError, to_dict
from duet.train.flags import assignments, split_words, translate
from duet.train.run import read_recipe

ROOT = Path(__file__).parents[3]

#: LLaVA's scripts/v1_5/finetune_lora.sh, its paths shortened; DUET's flags at the end.
SCRIPT = """--lora_enable True --lora_r 128 --lora_alpha 256 --mm_projector_lr 2e-5 --bits 4
    --model_name_or_path lmsys/vicuna-7b-v1.5 --version v1 --data_path mix.json --image_folder data
    --vision_tower openai/clip --pretrain_mm_mlp_adapter pre/mm_projector.bin --mm_projector_type mlp2x_gelu
    --mm_vision_select_layer -2 --mm_use_im_start_end False --mm_use_im_patch_token False --image_aspect_ratio pad
    --group_by_modality_length True --bf16 False --output_dir out --num_train_epochs 1
    --per_device_train_batch_size 16 --evaluation_strategy no --save_steps 50000 --learning_rate 2e-4
    --weight_decay 0. --warmup_ratio 0.03 --lr_scheduler_type cosine --model_max_length 2048
    --gradient_checkpointing True --dataloader_num_workers 4 --lazy_preprocess True --report_to none
    --layer_list [16,24] --image_token_ratio_list [0.5,0.0] --dominant_num 300 --context_num 7 --cluster_width 4"""


def translated(text: str, alone: bool = True) -> dict[str, Any]:
    return translate(split_words(text.split()).flags, alone)


def test_a_whole_script_becomes_a_recipe(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = SCRIPT.replace("--output_dir out", f"--output_dir {tmp_path}").split()
    assert command(["train", *words, "--dry-run", "training.save_steps=7"]) == 0
    made = yaml.safe_load(capsys.readouterr().out)
    model, data, training = made["model"], made["data"], made["training"]
    assert model["lora"] == {"r": 128, "lora_alpha": 256} and model["bits"] == 4 and model["freeze"] == []
    assert model["vision_tower"] == "openai/clip" and model["projector"] == "pre/mm_projector.bin"
    assert (data["version"], data["image_aspect_ratio"]) == ("vicuna_v1", "pad")
    assert (training["warmup_steps"], training["mm_projector_lr"], training["save_steps"]) == (0.03, 2e-5, 7)
    assert made["compression"]["method"] == "duet"
    assert made["compression"]["budget"] == {
        "dominant": 300,
        "contextual": 7,
        "cluster_width": 4,
        "layers": [16, 24],
        "ratios": [0.5, 0.0],
    }


@pytest.mark.parametrize(
    ("flags", "entries"),
    [
        ("--tune_mm_mlp_adapter True", {"model.tune_mm_mlp_adapter": True}),
        ("--learning_rate 1e-3", {"training.learning_rate": "1e-3", "model.freeze": ["tower"]}),
        ("--freeze_backbone True", {"model.freeze": ["tower", "model.language_model"]}),
        ("--freeze_mm_mlp_adapter True", {"model.freeze": ["projector", "tower"]}),
        (
            "--unfreeze_mm_vision_tower True --mm_vision_tower_lr 2e-6",
            {"model.freeze": [], "training.rates.tower": "2e-6"},
        ),
        (
            "--lora_enable True --unfreeze_mm_vision_tower True",
            {"model.train": ["projector", "tower"], "model.lora": {"r": 64}},
        ),
        ("--tune_mm_llm True --tune_mm_mlp True --tune_mm_vision False", {"model.train": ["decoder", "projector"]}),
        ("--tune_mm_mlp True --max_pixels 50176", {"model.train": ["projector"], "data.max_pixels": 50176}),
        ("--bits 16 --tune_mm_mlp True", {"model.train": ["projector"]}),
        (
            "--tune_mm_mlp True --layer_list [8] --image_token_ratio_list [0.5]",
            {
                "model.train": ["projector"],
                "compression.method": "pyramiddrop",
                "compression.budget": {"layers": [8], "ratios": [0.5]},
            },
        ),
        (
            "--tune_mm_mlp True --dominant_num 54 --context_num 10",
            {
                "model.train": ["projector"],
                "compression.method": "visionzip_c",
                "compression.budget": {"dominant": 54, "contextual": 10},
            },
        ),
        (
            "--tune_mm_mlp True --video_tower v --image_tower i --tokenizer_model_max_length 3072"
            " --model_max_length 2048",
            {
                "model.train": ["projector"],
                "model.video_tower": "v",
                "model.vision_tower": "i",
                "model.kind": "video_llava",
                "training.model_max_length": 3072,
            },
        ),
    ],
)  # fmt: skip
def test_flags(flags: str, entries: dict[str, Any]) -> None:
    assert translated(flags) == entries


def test_beside_a_recipe_only_what_is_said_changes() -> None:
    assert translated("--learning_rate 0.5", alone=False) == {"training.learning_rate": 0.5}
    assert translated("--freeze_backbone True", alone=False) == {"model.freeze": ["tower", "model.language_model"]}


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ("--lora_enabel True", "unknown flag --lora_enabel; did you mean lora_enable"),
        ("--xyzzy 1", "unknown flag --xyzzy; choose one of"),
        ("--mm_projector_type linear", "--mm_projector_type linear: only mlp2x_gelu is possible"),
        ("--data_flatten True", "one row at a time"),
        ("--lora_r 8", "--lora_r has no effect without --lora_enable True"),
        ("--layer_list [8]", "belong together"),
        ("--context_num 8", "need --dominant_num"),
        ("--dominant_num 8 --use_salient_tokens True", "no effect without --layer_list"),
        ("--layer_list 8 --image_token_ratio_list 0.5", "expected a list"),
        ("--tune_mm_llm False --tune_mm_mlp False", "nothing would be trained"),
        ("--seed 1 --seed 2", "--seed is given twice"),
    ],
)
def test_what_cannot_be_followed_is_refused(flags: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told.replace("[", r"\[")):
        translated(flags)


def test_words() -> None:
    words = ["r.yaml", "--data_path", "a.json", "b.json", "--bf16", "model.freeze=[tower]", "--seed=3"]
    found = split_words([*words, "--run-name", "x"])
    assert (found.recipe, found.overrides) == ("r.yaml", ["model.freeze=[tower]"])
    assert found.flags == {"data_path": ["a.json", "b.json"], "bf16": [], "seed": ["3"], "run_name": ["x"]}
    assert translate(found.flags, alone=False) == {
        "data.data_path": ["a.json", "b.json"],
        "training.bf16": True,
        "training.seed": 3,
        "training.run_name": "x",
    }
    with pytest.raises(ConfigError, match=r"'b\.yaml': expected section\.key=value"):
        split_words(["a.yaml", "b.yaml"])
    nested = assignments({"training.rates.tower": 1, "model.bits": 4})
    assert nested == {"training": {"rates": {"tower": 1}}, "model": {"bits": 4}}


def test_the_command_without_a_recipe_says_what_it_wants(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["train", "training.seed=3"]) == 2
    assert "name a recipe" in capsys.readouterr().err
    assert command(["train", "nowhere.yaml"]) == 2
    assert "no such configuration file: nowhere.yaml" in capsys.readouterr().err
    assert json.dumps(translate({}, alone=False)) == "{}"


@pytest.mark.parametrize(
    ("entry", "message"),
    [("method=duett", "duett"), ("budget=nothing", "nothing"), ("switches={positions: kept}", "positions")],
)
def test_names_are_checked_before_a_recipe_is_printed(
    entry: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = str(ROOT / "configs" / "train" / "mini_final_duet.yaml")
    assert command(["train", recipe, "--dry-run", f"compression.{entry}"]) == 2
    shown = capsys.readouterr()
    assert message in shown.err and not shown.out


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "train").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_is_printed_without_its_gpus(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("duet.train.arguments.is_torch_bf16_gpu_available", lambda: False)
    given = yaml.safe_load(path.read_text())["training"]
    recipe, dry = read_recipe([str(path), "--dry-run", "training.deepspeed=configs/deepspeed/zero3.json"])
    shown = to_dict(recipe)["training"]
    assert (
        dry and shown["deepspeed"] == "configs/deepspeed/zero3.json" and shown["use_cpu"] is given.get("use_cpu", False)
    )
    assert {name: shown[name] for name in given if name != "save_strategy"} == {
        name: value for name, value in given.items() if name != "save_strategy"
    }
    if given.get("bf16"):
        with pytest.raises(ConfigError, match=r"bf16: this machine has no GPU .*use_cpu"):
            read_recipe([str(path)])
    with pytest.raises(ConfigError, match="training: bf16: expected true or false"):
        read_recipe([str(path), "--dry-run", "training.bf16=perhaps"])
