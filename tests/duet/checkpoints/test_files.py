"""Folders, hub ids, weight files: finding, fetching and refusing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from duet.checkpoints.files import CheckpointError, read_json, read_tensors, resolve_folder, weight_files


class Payload:
    """Runs a call when an unguarded unpickler meets it."""

    def __reduce__(self):
        return (Path.touch, (Path("ran"),))


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).write_bytes(b"")


def test_local_folder_needs_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *a, **k: pytest.fail("downloaded"))
    assert resolve_folder(tmp_path) == tmp_path


@pytest.mark.parametrize("name", ["./nowhere", "a/b/c", "plain"])
def test_neither_folder_nor_id(name: str):
    with pytest.raises(CheckpointError, match=f"no checkpoint at '{name}'"):
        resolve_folder(name)


def test_a_folder_has_no_revision(tmp_path: Path):
    assert resolve_folder(tmp_path) == tmp_path
    with pytest.raises(CheckpointError, match="revision 'v1' would have no effect"):
        resolve_folder(tmp_path, revision="v1")


def test_hub_fetches_safetensors_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fetched: list[tuple[str | None, list[str]]] = []

    def snapshot_download(name: str, revision: str | None, allow_patterns: list[str]) -> str:
        fetched.append((revision, allow_patterns))
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    touch(tmp_path, "model-00001-of-00002.safetensors")
    assert resolve_folder("owner/name", revision="v1") == tmp_path
    assert len(fetched) == 1
    assert fetched[0][0] == "v1"
    assert not any("bin" in pattern for pattern in fetched[0][1])
    (tmp_path / "model-00001-of-00002.safetensors").unlink()
    resolve_folder("owner/name")
    assert fetched[-1][1][0] == "pytorch_model*.bin"
    resolve_folder("owner/name", weights=False)
    assert not any("safetensors" in pattern for pattern in fetched[-1][1])


def test_hub_failure_names_the_id(monkeypatch: pytest.MonkeyPatch):
    def snapshot_download(*args, **kwargs):
        raise OSError("no route")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    with pytest.raises(CheckpointError, match="'owner/name' is not a local folder and could not be fetched"):
        resolve_folder("owner/name")


def test_safetensors_before_pickle(tmp_path: Path):
    touch(tmp_path, "pytorch_model.bin", "model.safetensors")
    assert [file.name for file in weight_files(tmp_path)] == ["model.safetensors"]


def test_missing_shard_is_named(tmp_path: Path):
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    touch(tmp_path, "model-00001-of-00002.safetensors")
    with pytest.raises(CheckpointError, match=r"missing shards: model-00002-of-00002\.safetensors"):
        weight_files(tmp_path)


def test_no_weights(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"has no weights: expected one of model\.safetensors"):
        weight_files(tmp_path)


@pytest.mark.parametrize("legacy", [False, True])
def test_pickle_of_tensors(tmp_path: Path, legacy: bool):
    value = torch.arange(6.0).reshape(2, 3)
    file = tmp_path / "pytorch_model.bin"
    torch.save({"a": value}, file, _use_new_zipfile_serialization=not legacy)
    assert torch.equal(read_tensors([file])["a"], value)


def test_pickle_with_code_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"a": Payload()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin holds more than tensors"):
        read_tensors([tmp_path / "pytorch_model.bin"])
    assert not (tmp_path / "ran").exists()


def test_pickle_of_something_else(tmp_path: Path):
    torch.save({"a": torch.ones(1), "epoch": 3}, tmp_path / "x.bin")
    with pytest.raises(CheckpointError, match="epoch are not tensors"):
        read_tensors([tmp_path / "x.bin"])


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_damaged_file_is_named(tmp_path: Path, name: str):
    (tmp_path / name).write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(CheckpointError, match=name):
        read_tensors([tmp_path / name])


def test_truncated_safetensors(tmp_path: Path):
    file = tmp_path / "model.safetensors"
    save_file({"a": torch.ones(64, 64)}, file)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="cut short"):
        read_tensors([file])


@pytest.mark.parametrize(("text", "message"), [("{", "not valid JSON"), ("[]", "holds a list")])
def test_bad_json(tmp_path: Path, text: str, message: str):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=message):
        read_json(tmp_path / "config.json")


def test_absent_json(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        read_json(tmp_path / "config.json")
