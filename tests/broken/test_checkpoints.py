"""Checkpoints whose files say what they should not: a line that names the file, before memory and time are spent."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import LlavaForConditionalGeneration

import duet
from duet.checkpoints.files import CheckpointError
from duet.errors import UserError
from duet.inference import ask
from tests import golden_qwen
from tests.broken.test_media import within
from tests.llava_checkpoints import HF, ORIGINAL, copy_of, edit_json
from tests.small_world import random_model

QWEN = golden_qwen.FOLDER / "weights_hf"
NONSENSE: tuple[Any, ...] = (None, "x", -1, 10**9, [None])


def loaded(folder: Path) -> Any:
    """Load and ask one question; returns what was raised, or None."""

    def work() -> None:
        model, processor = duet.load(str(folder), device="cpu")
        ask(model, processor, [Image.new("RGB", (90, 70), (9, 99, 9))], "What?", max_new_tokens=1)

    return within(60, work)


def copied(folder: Path, to: Path) -> Path:
    return copy_of(folder, to) if folder in (HF, ORIGINAL) else Path(shutil.copytree(folder, to / "checkpoint"))


def entries(settings: dict[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Paths of all entries, at any depth."""
    for name, value in settings.items():
        yield (*above, name)
        if isinstance(value, dict):
            yield from entries(value, (*above, name))


def cases() -> list[tuple[str, str, tuple[str, ...], int]]:
    """Every entry of the small files with one kind of nonsense each; which one goes round."""
    found = []
    for family, folder in (("world", Path(random_model())), ("qwen", QWEN)):
        for file in ("config.json", "generation_config.json", "processor_config.json", "preprocessor_config.json"):
            if (folder / file).exists():
                paths = entries(json.loads((folder / file).read_text()))
                found += [(family, file, path, number % len(NONSENSE)) for number, path in enumerate(paths)]
    return found


@pytest.mark.parametrize("family", ["world", "qwen"])
def test_every_entry_of_the_small_files(tmp_path: Path, family: str) -> None:
    """Refused or as good as before; never another exception."""
    folder = copied(Path(random_model()) if family == "world" else QWEN, tmp_path)
    faults = []
    for _, file, path, kind in (case for case in cases() if case[0] == family):
        text = (folder / file).read_text()
        changed = copy.deepcopy(json.loads(text))
        place = changed
        for name in path[:-1]:
            place = place[name]
        place[path[-1]] = NONSENSE[kind]
        (folder / file).write_text(json.dumps(changed))
        told = loaded(folder)
        (folder / file).write_text(text)
        if told is not None and (not isinstance(told, UserError) or "\n" in str(told)):
            faults.append(f"{file} {'.'.join(path)} = {NONSENSE[kind]!r}: {told!r}")
    assert not faults, "\n".join(faults)


def refused(folder: Path, message: str) -> None:
    told = loaded(folder)
    assert isinstance(told, CheckpointError), told
    assert message in str(told) and "\n" not in str(told), told


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "config.json is empty"),
        (b"[]", "holds a list"),
        (b"{", "not valid JSON"),
        (b"[" * 10_000 + b"]" * 10_000, "nested more than 100 deep"),
        (b'{"model_type": ' + b"[" * 10_000 + b"]" * 10_000 + b"}", "nested more than 100 deep"),
        ("{}".encode("utf-16"), "UTF-16"),
        (b'{"vocab_size": ' + b"9" * 6000 + b"}", "digits"),
        (b"\xff\xd8\xff", "not UTF-8"),
    ],
)
@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
def test_a_small_file_of_nonsense(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    folder = copied(HF, tmp_path)
    (folder / name).write_bytes(data)
    refused(folder, message.replace("config.json", name))


@pytest.mark.parametrize("section", ["text_config", "vision_config"])
def test_a_part_that_is_left_out_is_not_built_by_default(tmp_path: Path, section: str) -> None:
    """transformers would take its defaults, 6.5 billion parameters of them."""
    folder = copied(HF, tmp_path)
    edit_json(folder / "config.json", **{section: None})
    refused(folder, "type 'llava'" if section == "vision_config" else "has no text_config")
    edit_json(folder / "config.json", **{section: {}})
    refused(folder, f"has no {section}")


def test_a_model_far_larger_than_its_weights_is_not_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = copied(HF, tmp_path)
    text = json.loads((folder / "config.json").read_text())["text_config"]
    edit_json(folder / "config.json", text_config={**text, "intermediate_size": 400_000})
    monkeypatch.setattr(LlavaForConditionalGeneration, "from_pretrained", lambda *a, **k: pytest.fail("built"))
    refused(folder, "parameters, the weights beside it hold")


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({"weight_map": None}, "has no weight_map"),
        ({"weight_map": []}, "has no weight_map"),
        ({}, "has no weight_map"),
        ({"weight_map": {}}, "none at all"),
        ({"weight_map": {"a": "../secret.safetensors"}}, "which is not the name of a file beside it"),
        ({"weight_map": {"a": "/etc/passwd"}}, "which is not the name of a file beside it"),
        ({"weight_map": {"a": 5}}, "which is not the name of a file beside it"),
        ({"weight_map": {"a": ["b"]}}, "which is not the name of a file beside it"),
    ],
)
def test_an_index_of_nonsense(tmp_path: Path, index: Any, message: str) -> None:
    folder = copied(HF, tmp_path)
    shutil.move(folder / "model.safetensors", tmp_path / "secret.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(folder, message)


@pytest.mark.parametrize("content", [[torch.ones(1)], torch.ones(1), {"a": 1}, {1: torch.ones(1)}, "text", None])
def test_a_pickle_of_something_else(tmp_path: Path, content: Any) -> None:
    folder = copied(HF, tmp_path)
    (folder / "model.safetensors").unlink()
    torch.save(content, folder / "pytorch_model.bin")
    refused(folder, "pytorch_model.bin")


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "tokenizer.json"])
@pytest.mark.parametrize("data", [b"", b"\0" * 100, b"\xff" * 100, b"{}", b"PK\3\4" + b"\0" * 100])
def test_a_large_file_of_nonsense(tmp_path: Path, name: str, data: bytes) -> None:
    folder = copied(HF, tmp_path)
    if name == "pytorch_model.bin":
        (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(data)
    told = loaded(folder)
    assert isinstance(told, CheckpointError) and str(folder) in str(told), told


@pytest.mark.parametrize(
    "entry", ["mm_vision_tower", "hidden_size", "num_hidden_layers", "vocab_size", "mm_hidden_size"]
)
def test_the_original_layout(tmp_path: Path, entry: str) -> None:
    folder = copied(ORIGINAL, tmp_path)
    for value in NONSENSE[1:]:
        edit_json(folder / "config.json", **{entry: value})
        told = loaded(folder)
        assert told is None or isinstance(told, UserError), told
