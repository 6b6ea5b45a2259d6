"""The chain of stages on a small model: projector alone, its file, LoRA with DUET in the loop, merge, ask."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

import duet
from duet.budget import Budget
from duet.checkpoints.assemble import quantisation
from duet.checkpoints.setting import read_setting
from duet.cli.main import main as command
from duet.config import build
from duet.engine.attachment import attached
from duet.errors import UserError
from duet.loading import load_stock
from duet.train.arguments import Recipe
from duet.train.build import build_folder
from duet.train.run import run, train
from tests.duet.train.test_build import language_model
from tests.small_world import random_model, write_questions
from tests.training import losses_of

ROOT = Path(__file__).parents[3]
PROJECTOR = "multi_modal_projector"
BUDGET = {"dominant": 10, "contextual": 6, "layers": [1], "ratios": [0.5]}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four pictures with a question each, and a row of text."""
    root = tmp_path_factory.mktemp("rows")
    records: list[dict[str, Any]] = []
    for number in range(4):
        Image.new("RGB", (60, 60), (60 * number, 20, 200 - 40 * number)).save(root / f"{number}.png")
        turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "a red ring"}]
        records.append({"id": str(number), "image": f"{number}.png", "conversations": turns})
    records.append(
        {"id": "t", "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "a blue ring"}]}
    )
    (root / "rows.json").write_text(json.dumps(records))
    return root


def recipe(rows: Path, output: Path, start: str | Path, **sections: dict[str, Any]) -> Recipe:
    training = {"output_dir": str(output), "use_cpu": True, "disable_tqdm": True, "max_steps": 2, "save_steps": 1}
    training |= {"per_device_train_batch_size": 2, "learning_rate": 1e-2, "logging_steps": 1}
    training["lr_scheduler_type"] = "constant"
    data = {"data_path": str(rows / "rows.json"), "image_folder": str(rows)}
    return build(
        Recipe,
        {
            "model": {"model_name_or_path": str(start), **sections.get("model", {})},
            "data": {**data, **sections.get("data", {})},
            "training": {**training, **sections.get("training", {})},
            **({"compression": sections["compression"]} if "compression" in sections else {}),
        },
    )


def logits(folder: str | Path, attach: bool = False) -> Tensor:
    model, _ = duet.load(str(folder), device="cpu") if attach else load_stock(str(folder), device="cpu")
    config = model.config
    side = config.vision_config.image_size
    ids = torch.tensor([[5, *[config.image_token_id] * config.image_seq_length, 7, 9, 11]])
    pixels = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return model(input_ids=ids, pixel_values=pixels).logits


def test_a_projector_alone_is_trained_written_and_read(rows: Path, tmp_path: Path) -> None:
    start = random_model()
    run(recipe(rows, tmp_path / "one", start, model={"tune_mm_mlp_adapter": True}, data={"version": "plain"}))
    written = torch.load(tmp_path / "one" / "mm_projector.bin", weights_only=True)
    assert sorted(written) == [f"model.mm_projector.{place}.{kind}" for place in (0, 2) for kind in ("bias", "weight")]
    after = load_stock(str(tmp_path / "one"), device="cpu")[0].state_dict()
    before = load_stock(start, device="cpu")[0].state_dict()
    for name, value in after.items():
        assert torch.equal(value, before[name]) == (PROJECTOR not in name), name
    assert torch.equal(written["model.mm_projector.0.weight"], after[f"model.{PROJECTOR}.linear_1.weight"])
    assert (tmp_path / "one" / "checkpoint-1" / "mm_projector.bin").exists()

    file = str(tmp_path / "one" / "mm_projector.bin")
    again = build_folder(start, tmp_path / "built", projector=file)
    torch.testing.assert_close(logits(again), logits(tmp_path / "one"))
    whole = str(tmp_path / "one" / "model.safetensors")
    assert any(PROJECTOR in name for name in load_file(whole))
    torch.testing.assert_close(logits(build_folder(start, tmp_path / "two", projector=whole)), logits(again))
    torch.save({"model.mm_projector.0.weight": torch.zeros(2, 2)}, tmp_path / "bad.bin")
    with pytest.raises(UserError, match=r"does not hold this model's projector: .*linear_1\.bias is missing"):
        run(recipe(rows, tmp_path / "three", start, model={"projector": str(tmp_path / "bad.bin")}))
    with pytest.raises(UserError, match=r"model\.projector: no such file"):
        run(recipe(rows, tmp_path / "three", start, model={"projector": str(tmp_path / "none.bin")}))


@pytest.mark.parametrize("dora", [False, True])
def test_an_adapter_is_trained_resumed_merged_and_asked(
    rows: Path, tmp_path: Path, dora: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    start = random_model()
    lora = {"r": 2, "lora_alpha": 4, **({"use_dora": True} if dora else {})}
    chosen = {
        "model": {"lora": lora},
        "compression": {"method": "duet", "budget": BUDGET, "switches": {"positions": "keep"}},
        "training": {"mm_projector_lr": 1e-3},
    }
    run(recipe(rows, tmp_path / "straight", start, **{**chosen, "training": {"max_steps": 3}}))
    run(recipe(rows, tmp_path / "out", start, **{**chosen, "training": {"max_steps": 2}}))
    run(recipe(rows, tmp_path / "out", start, **{**chosen, "training": {"max_steps": 3}}))
    assert losses_of(tmp_path / "out") == losses_of(tmp_path / "straight")

    folder = tmp_path / "out"
    assert {path.name for path in folder.iterdir()} >= {
        "adapter_config.json",
        "adapter_model.safetensors",
        "non_lora_trainables.bin",
        "duet_config.json",
        "recipe.yaml",
    }
    assert not (folder / "model.safetensors").exists() and not (folder / "mm_projector.bin").exists()
    rest = torch.load(folder / "non_lora_trainables.bin", weights_only=True)
    assert all(name.startswith(f"base_model.model.model.{PROJECTOR}.") for name in rest) and len(rest) == 4
    setting = read_setting(folder)
    assert setting is not None and setting.switches == {"positions": "keep"}
    assert setting.budget == Budget(10, 6, layers=(1,), ratios=(0.5,)) and len(setting.trained) == 1
    assert read_setting(folder / "checkpoint-3") == setting

    model, _ = duet.load(str(folder), device="cpu")
    assert attached(model).compression.budget == setting.budget
    assert (logits(folder) - logits(start)).abs().max() > 1e-4
    assert command(["train", "merge", str(folder), "--output", str(tmp_path / "merged")]) == 0
    torch.testing.assert_close(logits(tmp_path / "merged"), logits(folder))
    torch.testing.assert_close(logits(tmp_path / "merged", attach=True), logits(folder, attach=True))
    assert not (tmp_path / "merged" / "adapter_config.json").exists()
    capsys.readouterr()
    asked = ["ask", str(rows / "0.png"), "What?", "--model", str(folder), "--device", "cpu", "--max-new-tokens", "2"]
    assert command(asked) == 0
    printed = capsys.readouterr()
    if not dora:
        write_questions(tmp_path / "questions", "pope", count=4)
        evaluation = ["eval", "--model", str(folder), "--tasks", "pope", "--data", str(tmp_path / "questions")]
        assert command([*evaluation, "--output", str(tmp_path / "results"), "--device", "cpu"]) == 0
        settings = json.loads((tmp_path / "results" / "pope" / "run.json").read_text())
        assert settings["method"] == "duet_c_all" and settings["budget"]["dominant"] == 10
        assert settings["switches"] == {"positions": "keep"}
    assert "duet_c_all as it was trained" in printed.err and "100 -> 16 -> 8" in printed.out


def test_both_recipes_of_llava_15_in_turn(rows: Path, tmp_path: Path) -> None:
    """As they stand in configs/train, but for the names of files and the sizes of the run: nothing to build before."""
    recipes = [str(ROOT / "configs" / "train" / f"llava15_{stage}.yaml") for stage in ("pretrain", "finetune")]
    first, second = (yaml.safe_load(Path(file).read_text()) for file in recipes)
    assert second["model"]["projector"] == f"{first['training']['output_dir']}/mm_projector.bin"
    base, tower = language_model(tmp_path / "models")
    given = [f"model.model_name_or_path={base}", f"model.vision_tower={tower}", "model.dtype=float32"]
    given += [f"data.data_path={rows / 'rows.json'}", f"data.image_folder={rows}", f"compression.budget={BUDGET}"]
    given += [f"training.{each}" for each in ("use_cpu=true", "bf16=false", "max_steps=1", "dataloader_num_workers=0")]
    given += ["training.per_device_train_batch_size=2", "training.warmup_steps=0"]
    one, two = tmp_path / "one", tmp_path / "two"
    assert train([recipes[0], *given, f"training.output_dir={one}"]) == 0
    assert train([recipes[1], *given, f"training.output_dir={two}", f"model.projector={one / 'mm_projector.bin'}"]) == 0
    learned = torch.load(one / "mm_projector.bin", weights_only=True)["model.mm_projector.0.weight"]
    started = load_stock(str(two / "start"), device="cpu")[0].state_dict()
    model, _ = duet.load(str(two), device="cpu")
    weight = f"model.{PROJECTOR}.linear_1.weight"
    assert 0 < (model.state_dict()[weight] - learned).abs().max() < (started[weight] - learned).abs().max()
    assert attached(model).compression.budget == Budget(**{**BUDGET, "layers": (1,), "ratios": (0.5,)})


@pytest.mark.slow
@pytest.mark.parametrize("bits", [4, 8])
def test_adapters_over_quantised_weights(rows: Path, tmp_path: Path, bits: int) -> None:
    pytest.importorskip("bitsandbytes")
    start = random_model()
    chosen = {"model": {"lora": {"r": 2, "lora_alpha": 4}, "bits": bits, "dtype": "bfloat16"}}
    run(recipe(rows, tmp_path / "out", start, **chosen, compression={"method": "duet", "budget": BUDGET}))
    found = losses_of(tmp_path / "out")
    assert len(found) == 2 and found[1] < found[0] < 100
    assert (tmp_path / "out" / "non_lora_trainables.bin").exists()
    model, _ = load_stock(tmp_path / "out", device="cpu")  # on the base in full precision
    base = load_stock(start, device="cpu")[0].state_dict()
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, base[name])}
    assert any("q_proj" in name for name in moved) and any(PROJECTOR in name for name in moved)
    assert not [name for name in moved if "tower" in name or "embed_tokens" in name or "lm_head" in name]
    wanted = quantisation(bits, torch.bfloat16)
    options = {"device_map": {"": "cpu"}, "quantization_config": wanted, "dtype": "bfloat16"}
    beside, _ = load_stock(tmp_path / "out", **options)  # nothing is merged into quantised weights
    assert type(beside) is type(model) and any("lora_A" in name for name, _ in beside.named_parameters())
