"""Copies of checkpoints under the names that other programs read. Tensors are renamed, never changed.

`vllm`: transformers 5 saves the tower of the LLaVA family as `vision_tower.embeddings...`; vLLM (0.32), like the
checkpoints on the hub, has `vision_tower.vision_model.embeddings...`. Qwen's names are the same in both.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from safetensors.torch import save_file

from duet.checkpoints.files import CheckpointError, read_json, read_tensors, resolve_folder, weight_files
from duet.errors import UserError

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
#: Ends of weight files and their indexes, of all formats.
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".safetensors.index.json", ".bin.index.json")


def with_vision_model(name: str) -> str:
    """A tensor's name with the level `vision_model` in the tower, `model.` in front or not."""
    head, tower, rest = name.partition("vision_tower.")
    if head not in ("", "model.") or not tower or rest.startswith("vision_model."):
        return name
    return f"{head}{tower}vision_model.{rest}"


#: Layout -> `model_type` -> translation of names.
LAYOUTS: dict[str, dict[str, Callable[[str], str]]] = {
    "vllm": {"llava": with_vision_model, "llava_next": with_vision_model, "qwen2_5_vl": str, "qwen2_vl": str},
}


def export(path_or_id: str | Path, to: Path, layout: str) -> int:
    """Write a copy of a checkpoint.

    Args:
        path_or_id: local folder or hub id, in the Hugging Face layout.
        to: a new or empty folder.
        layout: one of `LAYOUTS`.

    Returns:
        number of renamed tensors.

    Raises:
        CheckpointError: no such checkpoint, or of a family or layout that cannot be exported.
        UserError: the folder is not empty.
    """
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise UserError(f"{to} is not empty; give a new folder")
    folder = resolve_folder(path_or_id)
    settings = read_json(folder / "config.json")
    family, known = settings.get("model_type"), LAYOUTS[layout]
    if family not in known:
        raise CheckpointError(f"{folder}: model_type is {family!r}; {layout} has names for {', '.join(known)}")
    if "vision_config" not in settings:
        raise CheckpointError(
            f"{folder} is in its original layout: load it with duet.load, save it with save_pretrained, export that"
        )
    files = weight_files(folder)
    to.mkdir(parents=True, exist_ok=True)
    renamed = _write_weights(files, to, known[family])
    for file in folder.iterdir():
        if file.is_file() and not file.name.endswith(WEIGHTS):
            shutil.copyfile(file, to / file.name)
    return renamed


def _write_weights(files: list[Path], to: Path, translate: Callable[[str], str]) -> int:
    """Rename file by file, so that one of them is in memory at a time."""
    places: dict[str, str] = {}
    renamed = size = 0
    for file in files:
        name = SINGLE if len(files) == 1 else f"{file.stem}.safetensors"
        tensors = {}
        for old, tensor in read_tensors([file]).items():
            new = translate(old)
            renamed += new != old
            size += tensor.nbytes
            tensors[new], places[new] = tensor.contiguous(), name
        save_file(tensors, to / name, metadata={"format": "pt"})
    if len(files) > 1:
        index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(places.items()))}
        (to / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return renamed
