"""Training mixtures that `duet data layout` knows: files, sources, sizes and the recipe entries that use them.

The facts are in `configs/data/training.yaml`; the folders are those that the mixtures' own rows name.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from duet.errors import UserError, suggest
from duet.files import read_yaml
from duet.shipped import configs

#: Where LLaVA's scripts keep training data.
ROOT = "./playground/data"
STATED = "counts and sizes are about those that the sources state; `duet data check-training` counts what is there"


@cache
def mixtures() -> dict[str, dict[str, Any]]:
    """All mixtures by name."""
    return read_yaml(configs("data") / "training.yaml")


def show(name: str, root: str = ROOT) -> str:
    """A mixture's files as text.

    Raises:
        UserError: unknown name.
    """
    if name not in mixtures():
        raise UserError(f"unknown training data {name!r}; {suggest(name, mixtures())}")
    mixture = mixtures()[name]
    lines = [f"{name}: {mixture['title']}", f"license: {mixture['license']}", STATED, f"{root.rstrip('/')}/"]
    width = max(len(file["path"]) for file in mixture["files"]) + 2
    for file in mixture["files"]:
        facts = [f"{file[key]:,} {key}" for key in ("rows", "pictures") if key in file]
        lines.append(
            f"  {file['path']:<{width}}{', '.join([*facts, *([file['size']] if 'size' in file else [])])}".rstrip()
        )
        lines.append(f"  {'':<{width}}from {file['source']}")
    lines.append("in a recipe:")
    for key, value in mixture["use"].items():
        lines.append(f"  data.{key}: {_below(root, value) if key != 'version' else value}")
    return "\n".join(lines)


def _below(root: str, value: Any) -> Any:
    if isinstance(value, list):
        return [_below(root, each) for each in value]
    return root.rstrip("/") if value == "." else f"{root.rstrip('/')}/{value}"
