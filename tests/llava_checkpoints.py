"""Small LLaVA checkpoints of both layouts, written on demand, and the golden ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import LlavaForConditionalGeneration

from duet.llava.model.original import TOWER_PREFIX, to_original_name

GOLDEN = Path(__file__).parent / "golden" / "llava15_tiny"
HF, ORIGINAL = GOLDEN / "weights_hf", GOLDEN / "weights_original"


def copy_of(folder: Path, to: Path) -> Path:
    """A writable copy of a golden checkpoint, with the tower's folder next to it."""
    shutil.copytree(GOLDEN / "clip_tiny", to / "clip_tiny", dirs_exist_ok=True)
    return Path(shutil.copytree(folder, to / folder.name))


def edit_json(file: Path, **changes: Any) -> None:
    """Set entries; None removes."""
    content = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))


def edit_tensors(folder: Path, **changes: Tensor | None) -> None:
    """Set tensors of model.safetensors (dots written as __); None removes."""
    file = folder / "model.safetensors"
    tensors = load_file(file)
    for name, tensor in changes.items():
        tensors[name.replace("__", ".")] = tensor
    save_file({k: v.clone() for k, v in tensors.items() if v is not None}, file, metadata={"format": "pt"})


def save_original(model: LlavaForConditionalGeneration, folder: Path) -> None:
    """Write a model's weights under original names into a copy of the golden original folder."""
    tensors = {to_original_name(k): v.contiguous() for k, v in model.state_dict().items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def split_off_tower(folder: Path, tower: Path) -> None:
    """Move the tower's tensors out of an original checkpoint into the tower's own folder, named as CLIP names them."""
    tensors = load_file(folder / "model.safetensors")
    inside = {k: v.clone() for k, v in tensors.items() if k.startswith(TOWER_PREFIX)}
    edit_tensors(folder, **{k.replace(".", "__"): None for k in inside})
    renamed = {"vision_model." + k.removeprefix(TOWER_PREFIX): v for k, v in inside.items()}
    save_file(renamed, tower / "model.safetensors", metadata={"format": "pt"})
