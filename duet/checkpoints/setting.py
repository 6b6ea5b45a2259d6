"""`duet_config.json`: the compression that a checkpoint was trained with, or saved with, beside its weights.

    {"method": "duet_c_all", "budget": {"dominant": 170, "contextual": 35, "layers": [16, 24], ...},
     "switches": {"positions": "keep"}, "companion": null, "not_stored": [],
     "trained": [null, {"dominant": 300, ...}, {"average": [64, 192]}], "duet_version": "0.9.0"}

Numbers, not names: a named budget that changes later must not change an old checkpoint. `trained` lists everything that
a step of training may have run under (null: all tokens; a range of averages); `budget` is the one to use by default.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from duet.budget import Budget
from duet.checkpoints.files import CheckpointError, read_json
from duet.errors import UserError
from duet.shipped import find_small_model
from duet.version import VERSION

log = logging.getLogger("duet.checkpoints")

FILE = "duet_config.json"
_KINDS: dict[str, tuple[type, str]] = {
    "method": (str, "a name"),
    "budget": (dict, "a mapping of numbers"),
    "switches": (dict, "a mapping"),
    "companion": (str, "a checkpoint"),
    "not_stored": (list, "a list"),
    "trained": (list, "a list"),
}
_ENTRIES = (*_KINDS, "duet_version")


@dataclass(frozen=True)
class Setting:
    """What `duet.attach` needs besides the model.

    Attributes:
        method: canonical name.
        budget: its numbers.
        switches: of `duet.switches.Switches` and of the method.
        companion: CLIP checkpoint of the tower, for methods that need its text tower.
        not_stored: arguments of `attach` that a file cannot hold (`salient`, a function).
        trained: what a step of training ran under, see the module's docstring; empty if nothing was trained.
    """

    method: str
    budget: Budget
    switches: Mapping[str, Any] = field(default_factory=dict)
    companion: str | None = None
    not_stored: tuple[str, ...] = ()
    trained: tuple[dict[str, Any] | None, ...] = ()

    def write(self, folder: str | Path) -> None:
        """Write `duet_config.json` into a folder, which is created if missing."""
        if self.not_stored:
            log.warning("%s in %s cannot hold %s: pass it again", FILE, folder, ", ".join(self.not_stored))
        Path(folder).mkdir(parents=True, exist_ok=True)
        values = {**asdict(self), "duet_version": VERSION}
        (Path(folder) / FILE).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def read_setting(folder: str | Path) -> Setting | None:
    """The setting beside a checkpoint; None without one.

    Raises:
        CheckpointError: the file is damaged, or holds entries that this version does not know.
    """
    file = Path(folder) / FILE
    if not file.exists():
        return None
    values = read_json(file)
    unknown = sorted(values.keys() - set(_ENTRIES))
    if unknown:
        raise CheckpointError(
            f"{file} has {', '.join(unknown)}, which this version ({VERSION}) does not know; it was written by "
            f"{values.get('duet_version', 'another one')}: install that one, or pass method= and budget="
        )
    for name, (kind, what) in _KINDS.items():
        value = values.get(name)
        if not isinstance(value, kind) and (value is not None or name in ("method", "budget")):
            raise CheckpointError(f"{file} says {name} = {str(value)[:80]}, which is not {what}")
    return Setting(
        values["method"],
        budget_of(values["budget"], file),
        dict(values.get("switches") or {}),
        values.get("companion"),
        tuple(values.get("not_stored") or ()),
        tuple(values.get("trained") or ()),
    )


def find_setting(path_or_id: str | Path) -> Setting | None:
    """The setting of a local folder, or of a hub id if its file was already downloaded; no network is used.

    Raises:
        CheckpointError: see `read_setting`.
    """
    name = str(path_or_id)
    if not name:
        return None
    try:
        folder = find_small_model(name) or Path(name)
        if folder.is_dir():
            return read_setting(folder)
    except (OSError, ValueError):  # text that cannot be a path
        return None
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        return None
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        cached = try_to_load_from_cache(name, FILE)
    except HFValidationError:
        return None
    return read_setting(Path(cached).parent) if isinstance(cached, str) else None


def budget_of(values: Any, source: object) -> Budget:
    """A budget from its numbers in a file.

    Raises:
        CheckpointError: they are not those of a budget.
    """
    try:
        return Budget(**values)
    except (TypeError, UserError) as error:
        raise CheckpointError(f"{source}: these are not the numbers of a budget: {error}") from error
