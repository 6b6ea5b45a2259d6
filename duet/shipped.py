"""Files that come with the project: its configurations, and the small world with its models.

In a source tree they are in `configs/` and `playground/mini/`. Installed, the configurations are in the package
(`duet.configs`), and the small world is a package of its own, `duet_mini` (distribution `duet-vlm-mini`).
"""

from __future__ import annotations

import os
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from duet.errors import UserError, suggest

_PACKAGE = Path(__file__).parent
#: Packages that hold the small world: in a source tree, and installed.
_SMALL_WORLD = ("playground.mini", "duet_mini")
#: Its model for commands that are given none.
SMALL_MODEL = "llava-mini"
_INSTALL = 'pip install "duet-vlm[mini]"'
#: Its models, in a clone.
_MODELS = Path("playground", "mini", "checkpoints")


def configs(kind: str) -> Path:
    """Folder of the configurations of a kind: `budgets`, `data`, `eval`, `paper`, `train`."""
    installed = _PACKAGE / "configs" / kind
    return installed if installed.is_dir() else _PACKAGE.parent / "configs" / kind


def find_config(given: str | Path, kind: str) -> Path:
    """A YAML file by its path, or one of the project's by its name: `quickstart`, `configs/eval/quickstart.yaml`.

    Raises:
        UserError: a name without a folder or suffix that is none of the project's.
    """
    path = Path(given)
    if path.exists():
        return path
    shipped = configs(kind) / f"{path.stem}.yaml"
    if path.parent == Path("configs", kind) and path.suffix == ".yaml" and shipped.exists():
        return shipped
    if path.suffix or len(path.parts) != 1:
        return path
    if not shipped.exists():
        names = [file.stem for file in configs(kind).glob("*.yaml")]
        raise UserError(f"no file {path}, and no configuration of that name; {suggest(path.name, names)}")
    return shipped


def small_world() -> Path | None:
    """Folder of the small world's package, if there is one."""
    beside = _PACKAGE.parent.joinpath("playground", "mini")
    if (beside / "world.py").exists():
        return beside
    spec = find_spec(_SMALL_WORLD[1])
    return None if spec is None or spec.origin is None else Path(spec.origin).parent


def small_module(name: str) -> ModuleType:
    """A module of the small world: `draw`, `world`, `generate` ...

    Raises:
        UserError: this installation has no small world.
    """
    folder = small_world()
    if folder is None:
        raise UserError(f"this installation has no small world: {_INSTALL}")
    beside = folder.parent.name == "playground"
    return import_module(f"{_SMALL_WORLD[0 if beside else 1]}.{name}")


def small_models() -> dict[str, Path]:
    """The small world's models by name: `llava-mini` ..."""
    folder = small_world()
    found = () if folder is None else sorted((folder / "checkpoints").glob("*/config.json"))
    return {file.parent.name: file.parent for file in found}


def find_small_model(given: str | Path) -> Path | None:
    """Folder of a small model by its name, or by its path in a checkout where there is none; else None.

    Raises:
        UserError: one of the small world's models that this installation does not have.
    """
    path = Path(given)
    if path.parent not in (Path(), _MODELS) or not path.name.startswith(SMALL_MODEL) or os.path.exists(given):
        return None
    models = small_models()
    if path.name in models:
        return models[path.name]
    if not models:
        raise UserError(f"no small model is installed: {_INSTALL}")
    raise UserError(
        f"no small model {path.name} is installed, only {', '.join(models)}; all are in {_MODELS.as_posix()} of a clone"
    )


def default_model() -> Path:
    """The small model that commands use when they are given none.

    Raises:
        UserError: this installation has no small world.
    """
    models = small_models()
    if SMALL_MODEL not in models:
        raise UserError(f"no small model is installed: give a folder or hub id with --model, or {_INSTALL}")
    return models[SMALL_MODEL]
