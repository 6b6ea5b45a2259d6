"""Provenance of a result: settings that determine the answers, and the environment.

Settings are compared when a run is resumed; answers made with other settings are never continued. The environment
(library versions, device, commit) is only recorded.
"""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from duet.engine.compat import commit_hash
from duet.errors import UserError
from duet.eval.reading import read_json, shown
from duet.eval.types import InputError
from duet.version import VERSION

LIBRARIES = ("torch", "transformers", "accelerate", "tokenizers", "numpy", "pillow")
WEIGHTS = ("*.safetensors", "*.bin", "adapter_config.json", "config.json")
MEBIBYTE = 1 << 20


def model_revision(source: str, config: Any) -> str:
    """The hub commit; for a folder, a fingerprint: sha256 over names, sizes and the ends of its weight files."""
    folder = Path(source)
    if not folder.is_dir():
        return str(commit_hash(config))
    seen = hashlib.sha256()
    for path in sorted({path for pattern in WEIGHTS for path in folder.glob(pattern)}):
        seen.update(f"{path.name} {path.stat().st_size} ".encode())
        with path.open("rb") as file:
            seen.update(file.read(MEBIBYTE))
            file.seek(max(0, path.stat().st_size - MEBIBYTE))
            seen.update(file.read(MEBIBYTE))
    return f"sha256:{seen.hexdigest()}"


def surroundings(device: torch.device, processes: int) -> dict[str, Any]:
    """Versions, device and commit of this run."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "duet": VERSION,
        "git_commit": git_commit(),
        "python": platform.python_version(),
        "libraries": {library: _version(library) for library in LIBRARIES},
        "device": f"{device.type} ({name})",
        "threads": torch.get_num_threads(),
        "processes": processes,
    }


def git_commit() -> str | None:
    """Commit of the source tree, with `+changes` if modified; None if it is not a git checkout."""
    tree = Path(__file__).parents[3]
    if not (tree / ".git").exists():
        return None
    commit = _git(tree, "rev-parse", "HEAD")
    return commit and commit + ("+changes" if _git(tree, "status", "--porcelain", "--untracked-files=no") else "")


def check_settings(path: Path, settings: Mapping[str, Any]) -> bool:
    """Whether answers with these settings already exist.

    Raises:
        UserError: they were made with other settings; the message lists the differences.
    """
    if not path.exists():
        return False
    try:
        there = read_json(path)
    except InputError as error:
        raise UserError(f"{error}; it records how the answers were made: --overwrite starts again") from None
    wanted = json.loads(json.dumps(settings))
    keys = [key for key in {**there, **wanted} if there.get(key) != wanted.get(key)]
    if keys:
        changes = "; ".join(f"{key}: {shown(there.get(key))} there, {shown(wanted.get(key))} now" for key in keys)
        raise UserError(
            f"{path.parent} was made with other settings ({changes}); choose another output folder, or --overwrite"
        )
    return True


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None


def _git(tree: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(tree), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
