"""Checkpoint folders: a local path or a hub id in, tensors by name out.

Nothing is downloaded for a local folder. safetensors files are preferred; pickle files (`.bin`) are only opened with
`weights_only=True`. Tensors are memory-mapped, so a 13 GB checkpoint takes no memory until each tensor is copied to its
device and dtype.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open

from duet.errors import UserError
from duet.files import blame, is_file, is_folder, one_line, parse_json, read_text, regular_file
from duet.shipped import find_small_model

if TYPE_CHECKING:
    from torch import Tensor

#: The small files of a repository: configuration, tokenizer, chat template.
SMALL_FILES = ("*.json", "*.jinja", "tokenizer.model")
SAFE_WEIGHTS = ("model*.safetensors", "adapter_model.safetensors")
PICKLED_WEIGHTS = ("pytorch_model*.bin", "adapter_model.bin", "mm_projector.bin", "non_lora_trainables.bin")
#: In search order.
WEIGHT_NAMES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)


class CheckpointError(UserError):
    """A checkpoint is incomplete, damaged or unsupported; the message names the file and the remedy."""


def resolve_folder(path_or_id: str | Path, *, revision: str | None = None, weights: bool = True) -> Path:
    """Folder of a checkpoint; a hub id is downloaded first.

    Args:
        path_or_id: local folder, `owner/name` on the hub, or the name of a model of the small world (`llava-mini`).
        revision: branch, tag or commit on the hub.
        weights: False fetches configuration and tokenizer files only.

    Raises:
        CheckpointError: neither a folder nor a reachable repository; a revision of a folder.
    """
    name = str(path_or_id)
    with blame(name[:80], CheckpointError):  # the home folder of an unknown user
        folder = Path(name).expanduser()
    local = folder if name and is_folder(folder) else find_small_model(folder)
    if local is not None:
        if revision is not None:
            raise CheckpointError(f"revision {revision!r} would have no effect: {name} is a folder, not a hub id")
        return local
    if name.startswith((".", "/", "~")) or name.count("/") != 1 or is_file(folder):
        raise CheckpointError(
            f"no checkpoint at {name[:200]!r}: give a folder with a config.json, or a hub id owner/name"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        patterns = [*SMALL_FILES, *SAFE_WEIGHTS] if weights else list(SMALL_FILES)
        fetched = Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
        if weights and not any(fetched.glob("model*.safetensors")):
            snapshot_download(name, revision=revision, allow_patterns=list(PICKLED_WEIGHTS))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise CheckpointError(
            f"{name!r} is not a local folder and could not be fetched from the hub ({type(error).__name__}): "
            "check the spelling, the network and, for gated models, `hf auth login`; or download it elsewhere and give "
            "the folder"
        ) from error
    return fetched


def read_json(file: Path) -> dict[str, Any]:
    """Content of a JSON object file.

    Raises:
        CheckpointError: the file is absent or is not a JSON object.
    """
    if not file.exists():
        raise CheckpointError(f"{file.parent} has no {file.name}")
    content = parse_json(read_text(file, CheckpointError), file, CheckpointError)
    if not isinstance(content, dict):
        raise CheckpointError(f"{file} holds a {type(content).__name__}, not a JSON object")
    return content


def has_weights(folder: Path) -> bool:
    """Whether the folder holds a whole model's weights, in any of the known formats."""
    return any((folder / name).exists() for name in WEIGHT_NAMES)


def weight_files(folder: Path) -> list[Path]:
    """Files that together hold the weights of a folder, safetensors first.

    Raises:
        CheckpointError: there are none, or the index names missing shards.
    """
    for name in WEIGHT_NAMES:
        file = folder / name
        if not file.exists():
            continue
        if not name.endswith(".index.json"):
            return [file]
        shards = [folder / shard for shard in sorted(set(_weight_map(file).values()))]
        absent = [shard.name for shard in shards if not shard.exists()]
        if absent or not shards:
            raise CheckpointError(f"{file} names missing shards: {', '.join(absent) or 'none at all'}")
        return shards
    raise CheckpointError(f"{folder} has no weights: expected one of {', '.join(WEIGHT_NAMES)}")


def _weight_map(index: Path) -> dict[str, str]:
    """Tensor -> file beside the index.

    Raises:
        CheckpointError: there is no such table, or it names a file outside the folder.
    """
    found = read_json(index).get("weight_map")
    if not isinstance(found, dict):
        raise CheckpointError(f"{index} has no weight_map (tensor -> file), but {str(found)[:80]}")
    for tensor, name in found.items():
        if not isinstance(name, str) or name in ("", ".", "..") or any(mark in name for mark in "/\\\0"):
            raise CheckpointError(f"{index}: {tensor} is in {name!r}, which is not the name of a file beside it")
    return found


def read_tensors(files: Sequence[Path]) -> dict[str, Tensor]:
    """Tensors of all files by name, on the CPU, memory-mapped.

    Raises:
        CheckpointError: a file is damaged, or a pickle file holds more than tensors.
    """
    tensors: dict[str, Tensor] = {}
    for file in files:
        regular_file(file, CheckpointError)
        found = _read_safetensors(file) if file.suffix == ".safetensors" else _read_pickle(file)
        twice = tensors.keys() & found.keys()
        if twice:
            raise CheckpointError(f"{file} holds {min(twice)} and {len(twice) - 1} more that are in another file, too")
        tensors.update(found)
    return tensors


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    try:
        with safe_open(file, framework="pt", device="cpu") as opened:
            return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (not a dict)
    except Exception as error:  # a damaged header can raise anything
        raise CheckpointError(
            f"{file} is not a readable safetensors file ({one_line(error)}): it is cut short or a Git LFS pointer; "
            "fetch it again"
        ) from error


def _read_pickle(file: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{file} holds more than tensors, so opening it could run code, or is damaged; it was not opened. "
            "Use a safetensors version of the checkpoint"
        ) from error
    except Exception as error:  # a damaged archive can raise anything
        raise CheckpointError(f"{file} is not a readable PyTorch file ({one_line(error)}); fetch it again") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{file} holds a {type(content).__name__}, not tensors by name")
    strays = [
        name for name, value in content.items() if not (isinstance(name, str) and isinstance(value, torch.Tensor))
    ]
    if strays:
        raise CheckpointError(f"{file} is not a plain state dict: {', '.join(map(str, strays[:5]))} are not tensors")
    return content
