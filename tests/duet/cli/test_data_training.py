"""`duet data check-training` on the small world: counts, bad rows, lengths and costs; layouts of training data."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image
from transformers import CLIPVisionModel

from duet.cli.main import main
from duet.data.mixtures import mixtures
from playground.mini.build_model import build_model, build_processor, training_texts
from playground.mini.generate import write_train
from playground.mini.tokenizer import train_tokenizer
from playground.mini.train_tower import tower_config

ROWS = 12


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    write_train(root / "train", ROWS, seed=0, watch=6)
    tokenizer = train_tokenizer(training_texts(seed=0, count=ROWS))
    build_model(tokenizer, CLIPVisionModel(tower_config()), seed=0, layers=2).save_pretrained(root / "init")
    build_processor(tokenizer).save_pretrained(root / "init")
    return root


@pytest.fixture
def world(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the data, and a recipe."""
    monkeypatch.setenv("DUET_CACHE", str(tmp_path / "cache"))
    shutil.copytree(made / "train", tmp_path / "train")
    data = {"data_path": str(tmp_path / "train" / "finetune.json"), "image_folder": str(tmp_path / "train" / "images")}
    training = {"per_device_train_batch_size": 4, "bf16": True, "num_train_epochs": 2}
    recipe = {
        "model": {"model_name_or_path": str(made / "init"), "freeze": ["model.vision_tower"]},
        "data": data,
        "training": {"output_dir": str(tmp_path / "out"), **training},
        "compression": {"method": "duet", "budget": {"dominant": 10, "contextual": 6, "layers": [1], "ratios": [0.5]}},
    }
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    return tmp_path


def check(world: Path, *words: str) -> int:
    return main(["data", "check-training", str(world / "recipe.yaml"), *words])


def test_a_whole_recipe(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--gpus", "2", "--tflops", "0.001", "--compare", "visionzip=22"]
    assert check(world, *words, "--json", str(world / "s.json"), "--histogram", str(world / "h.png")) == 0
    shown = capsys.readouterr().out
    assert f"{ROWS} rows to train" in shown and "0 bad rows" in shown and "4 steps on 2 GPU(s)" in shown
    found = json.loads((world / "s.json").read_text())
    assert found["visual"] == 100 * found["pictures"] == 100 * ROWS
    assert found["steps"] == 4 and len(found["lengths"]) == ROWS and found["learned"] > 0
    assert list(found["flops"]) == ["duet 12", "visionzip 22", "all tokens"]
    assert found["flops"]["duet 12"] < found["flops"]["all tokens"]
    assert found["parts"]["tower"][1] == 0 < found["parts"]["decoder"][1]
    assert found["memory"]["weights"] > 0
    assert Image.open(world / "h.png").format == "PNG"
    assert list((world / "cache" / "lengths").iterdir())


def test_bad_rows_stop_above_a_share(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = world / "train" / "finetune.json"
    rows = json.loads(file.read_text())
    (world / "train" / "images" / rows[0]["image"]).unlink()
    (world / "train" / "images" / rows[1]["image"]).write_bytes(b"not a picture")
    rows[2]["conversations"][-1]["value"] = ""
    file.write_text(json.dumps(rows))
    assert check(world) == 2
    told = capsys.readouterr()
    assert "3 bad rows" in told.out and "no such picture" in told.out and "empty answer" in told.out
    assert f"3 of {ROWS} rows are bad (25.00%, allowed are 0.10%)" in told.err
    assert check(world, "--bad-rows", "0.3") == 0


def test_damage_behind_the_header_needs_deep(world: Path) -> None:
    rows = json.loads((world / "train" / "finetune.json").read_text())
    path = world / "train" / "images" / rows[0]["image"]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert check(world) == 0
    assert check(world, "--deep") == 2


def test_the_original_s_tokenization_and_weights(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = world / "train" / "finetune.json"
    assert check(world, "data.tokenization=original", f"data.data_path=[{path}%50, {path}]") in (0, 2)
    assert f"{ROWS + ROWS // 2} rows" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--compare", "visionzip"], "expected METHOD=BUDGET"),
        (["--compare", "visionzipp=22"], "unknown method"),
        (["data.data_path=none.json"], "no such data file"),
    ],
)
def test_mistakes(words: list[str], message: str, world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(world, *words) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("name", list(mixtures()))
def test_layouts_name_files_sources_and_recipe(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "layout", name]) == 0
    shown = capsys.readouterr().out
    for file in mixtures()[name]["files"]:
        assert file["path"] in shown and file["source"] in shown
    assert "./playground/data" in shown and "data.data_path" in shown


def test_benchmarks_and_training_data_in_one_call(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "layout", "llava558k", "pope"]) == 0
    shown = capsys.readouterr().out
    assert "blip_laion_cc_sbu_558k.json" in shown and "llava_pope_test.jsonl" in shown
