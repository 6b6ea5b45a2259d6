"""Every field of a recipe with all kinds of nonsense: one line names file and field, before the model is loaded."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from duet.train import run as program
from duet.train.arguments import CompressionArguments, DataArguments, ModelArguments, TrainingArguments

SECTIONS = {
    "model": ModelArguments,
    "data": DataArguments,
    "compression": CompressionArguments,
    "training": TrainingArguments,
}
FIELDS = [(section, each.name) for section, cls in SECTIONS.items() for each in dataclasses.fields(cls)]
NONSENSE: dict[str, Any] = {
    "null": None,
    "a word": "no-such-thing",
    "nothing": "",
    "nan": float("nan"),
    "infinite": float("inf"),
    "below": -7,
    "zero": 0,
    "vast": 10**30,
    "digits": "9" * 400,
    "true": True,
    "a list": [None, {"a": 1}],
    "a mapping": {"no-such-key": [1]},
    "a date": "2020-01-01",
}
#: No field takes these.
NEVER = ("nan", "infinite", "a list", "vast")


class Loaded(Exception):
    """The model would be loaded now."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.llava_checkpoints import HF

    root = tmp_path_factory.mktemp("recipe")
    Image.new("RGB", (20, 20)).save(root / "a.png")
    spoken = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A ring"}]
    (root / "rows.json").write_text(json.dumps([{"id": "0", "image": "a.png", "conversations": spoken}]))
    recipe = {
        "model": {"model_name_or_path": str(HF)},
        "data": {"data_path": str(root / "rows.json"), "image_folder": str(root)},
        "compression": {"method": "duet", "budget": "llava15_128"},
        "training": {"output_dir": str(root / "out"), "max_steps": 1, "use_cpu": True, "report_to": "none"},
    }
    (root / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return root


@pytest.fixture(autouse=True)
def stop_at_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*args: Any) -> None:
        raise Loaded

    monkeypatch.setattr(program, "load_start", load)
    # nothing is left running for the tests that follow
    monkeypatch.setattr(program, "start_communication", lambda training: None)


def outcome(path: Path, capsys: pytest.CaptureFixture[str]) -> str | None:
    """The one line of a refusal; None if the model would be loaded."""
    capsys.readouterr()
    try:
        code = program.main([str(path)])
    except Loaded:
        return None
    err = capsys.readouterr().err
    assert code == 2 and err.count("\n") == 1 and "Traceback" not in err, err
    return err


def test_the_recipe_is_fine(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome(folder / "recipe.yaml", capsys) is None


@pytest.mark.parametrize(("section", "name"), FIELDS, ids=lambda value: value)
def test_a_field_of_nonsense(folder: Path, section: str, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text())
    path = folder / f"{section}-{name}.yaml"
    for kind, value in NONSENSE.items():
        changed = {**recipe, section: {**recipe[section], name: value}}
        path.write_text(yaml.safe_dump(changed))
        told = outcome(path, capsys)
        assert told is not None or kind not in NEVER, f"{kind} was taken"
        assert told is None or (name in told and str(path) in told), told


@pytest.mark.parametrize("section", SECTIONS)
@pytest.mark.parametrize("kind", ["null", "a word", "nan", "a list", "zero"])
def test_a_section_of_nonsense(folder: Path, section: str, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text())
    path = folder / "section.yaml"
    path.write_text(yaml.safe_dump({**recipe, section: NONSENSE[kind]}))
    told = outcome(path, capsys)
    assert told is not None and str(path) in told and section in told


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("model: {}".encode("utf-16"), "UTF-16"),
        (b"", "is empty"),
        (b"\xff\xfe\xfa", "UTF-8"),
        (b"a: 1\na: 2", "duplicate key"),
        (b"- 1", "must hold a mapping"),
        (b"[" * 5000, "recipe"),
        (b"modell: {}", "did you mean model"),
        (b"model: {}", "model_name_or_path is missing"),
    ],
)
def test_a_file_of_nonsense(tmp_path: Path, content: bytes, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(content)
    told = outcome(path, capsys)
    assert told is not None and str(path) in told and message in told


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training.deepspeed": "configs/zero.json"}, "deepspeed"),
        ({"training.report_to": "wandb"}, "report_to"),
        ({"training.optim": "adamw_bnb_8bit"}, "optim"),
        ({"training.optim": "adamw"}, "unknown value 'adamw'"),
        ({"training.lr_scheduler_type": "cosin"}, "did you mean cosine"),
        ({"training.eval_strategy": "steps"}, "eval_strategy is 'steps', which has no effect"),
        ({"training.output_dir": "/proc/none/there"}, "cannot write to the output folder"),
        ({"data.version": "vicuna"}, "did you mean vicuna_v1"),
        ({"data.data_path": "none.json"}, "no such data file: none.json"),
        ({"data.image_folder": "none"}, "row 0 (id '0'): no such picture: none/a.png"),
        ({"compression.method": "none"}, "compression.budget: method none keeps all tokens"),
        ({"compression.budget": -3}, "compression.budget: an average of -3"),
        ({"compression.switches": {"position": "keep"}}, "did you mean positions"),
        ({"compression.budget": {"dominannt": 3}}, "did you mean dominant"),
        ({"compression.budget": {"dominant": "many", "contextual": 1}}, "dominant: expected"),
        ({"training.label_smoothing_factor": 0.1}, "label_smoothing_factor"),
        ({"training.mm_projector_lr": float("nan")}, "mm_projector_lr: expected a number"),
        ({"training.dataloader_persistent_workers": True}, "persistent_workers"),
        ({"training.lr_scheduler_type": "cosine_with_min_lr"}, "lr_scheduler_type"),
        ({"training.max_steps": 0}, "max_steps is 0"),
        ({"model.dtype": "float23"}, "did you mean float32"),
    ],
)
def test_settings_that_only_experts_write(
    folder: Path, changes: dict[str, Any], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text())
    for name, value in changes.items():
        section, key = name.split(".")
        recipe[section][key] = value
    path = folder / "changed.yaml"
    path.write_text(yaml.safe_dump(recipe))
    told = outcome(path, capsys)
    assert told is not None and message in told, told


def test_a_folder_where_a_file_lies(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text())
    recipe["training"]["output_dir"] = str(folder / "a.png")
    (folder / "blocked.yaml").write_text(yaml.safe_dump(recipe))
    told = outcome(folder / "blocked.yaml", capsys)
    assert told is not None and "cannot write to the output folder" in told
