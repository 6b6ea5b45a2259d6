"""Checkpoints to resume from: which one is complete, whether this run may continue it, and what it leaves behind.

A checkpoint is complete when all processes have written their part; then, last of all, `duet_checkpoint.json` appears
in it, and only then older checkpoints go. So a kill at any moment leaves a usable one (after the first). Folders
without that file are of older versions, or of a kill: those have `duet_checkpoint.part`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from duet.errors import UserError
from duet.files import read_json

MARK, BEGUN = "duet_checkpoint.json", "duet_checkpoint.part"
_FOLDER = re.compile(r"checkpoint-(\d+)$")


@dataclass(frozen=True)
class Layout:
    """How a run is spread out, and what it trains.

    Attributes:
        sharding: `none` (one process or DDP), `zero-1`, `zero-2`, `zero-3` or `fsdp`.
        processes: their number.
        rows_per_step: over all processes and accumulation steps.
        seed: of the order of rows.
        grouped: whether rows are grouped by modality and length.
        family: `model_type` of the model's config; None: not known, in checkpoints of older versions.
        method: of the compression, `none` without; None: not known.
    """

    sharding: str
    processes: int
    rows_per_step: int
    seed: int
    grouped: bool
    family: str | None = None
    method: str | None = None


def mark_begun(folder: Path) -> None:
    """Say that a checkpoint is being written."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARK).unlink(missing_ok=True)
    (folder / BEGUN).touch()


def mark_complete(folder: Path, step: int, layout: Layout) -> None:
    """Say that a checkpoint is complete; call it when all processes have written their part."""
    path, waiting = folder / MARK, folder / BEGUN
    with waiting.open("w", encoding="utf-8") as file:
        file.write(json.dumps({"step": step, **asdict(layout)}, indent=2) + "\n")
        file.flush()
        os.fsync(file.fileno())
    waiting.replace(path)


def step_of(folder: Path) -> int:
    """The step in the name of a checkpoint's folder; -1 for other folders."""
    found = _FOLDER.search(folder.name)
    return int(found.group(1)) if found else -1


def find_checkpoints(output: Path) -> list[Path]:
    """All folders of checkpoints, oldest first, complete or not."""
    found = [path for path in output.glob("checkpoint-*") if path.is_dir() and step_of(path) >= 0]
    return sorted(found, key=step_of)


def newest_complete(output: Path) -> Path | None:
    """The checkpoint to continue from; None if there is none."""
    complete = [folder for folder in find_checkpoints(output) if _is_complete(folder)]
    return complete[-1] if complete else None


def remove_incomplete(output: Path) -> list[Path]:
    """Remove what a kill has left behind: checkpoints that are not complete. Returns them; one process calls this."""
    gone = [folder for folder in find_checkpoints(output) if not _is_complete(folder)]
    for folder in gone:
        shutil.rmtree(folder, ignore_errors=True)
    return gone


def keep_newest(output: Path, limit: int | None) -> None:
    """Remove the oldest checkpoints but `limit`; one process calls this."""
    if limit is None:
        return
    for folder in find_checkpoints(output)[: -max(limit, 1)]:
        shutil.rmtree(folder, ignore_errors=True)


def check_resume(folder: Path, layout: Layout) -> None:
    """Check that a run may continue a checkpoint: the same rows in the same steps, and states that can be read.

    Raises:
        UserError: it may not; the message says what to do.
    """
    if not (folder / MARK).is_file():  # of a version that did not write it
        return
    said = _read(folder / MARK)
    fresh = "or start a new run from its weights: another output_dir, and model.model_name_or_path of this folder"
    if (said.rows_per_step, said.seed, said.grouped) != (layout.rows_per_step, layout.seed, layout.grouped):
        wanted = [
            f"{name}: {was} there, {now} here"
            for name, was, now in (
                ("rows per step", said.rows_per_step, layout.rows_per_step),
                ("seed", said.seed, layout.seed),
                ("group_by_modality_length", said.grouped, layout.grouped),
            )
            if was != now
        ]
        raise UserError(
            f"{folder} would continue with other rows ({'; '.join(wanted)}): rows per step are processes x "
            f"per_device_train_batch_size x gradient_accumulation_steps; set these as before, {fresh}"
        )
    for field, was, now in (
        ("model.model_name_or_path", said.family, layout.family),
        ("compression.method", said.method, layout.method),
    ):
        if was is not None and was != now:
            raise UserError(f"{folder} is of a run with {was}, this one has {now}: set {field} as before, {fresh}")
    if said.sharding != layout.sharding:
        raise UserError(
            f"{folder} was written by a run with sharding {said.sharding}, this one has {layout.sharding}: its "
            f"optimizer's state cannot be read; set training.deepspeed and training.fsdp as before, {fresh}"
        )
    if said.processes != layout.processes and said.sharding.startswith("zero"):
        raise UserError(
            f"{folder} was written by {said.processes} processes, this run has {layout.processes}: DeepSpeed's "
            f"optimizer states are split by process; start {said.processes}, {fresh} (FSDP2 continues on any number)"
        )


def forget_after(log: Path, step: int) -> None:
    """Drop lines of `metrics.jsonl` about later steps than the one that a run continues from: they will come again."""
    if not log.is_file():
        return
    kept = []
    for line in log.read_text(encoding="utf-8").splitlines():
        try:
            fits = json.loads(line).get("step", 0) <= step
        except (ValueError, AttributeError):  # a kill cut the last line
            fits = False
        kept += [line] if fits else []
    waiting = log.with_suffix(".part")
    waiting.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
    waiting.replace(log)


def _is_complete(folder: Path) -> bool:
    whole = (folder / MARK).is_file()
    return whole or (not (folder / BEGUN).exists() and (folder / "trainer_state.json").is_file())


def _read(path: Path) -> Layout:
    given: Any = read_json(path, UserError, "mark of a checkpoint")
    try:
        return Layout(**{name: given[name] for name in Layout.__dataclass_fields__ if name in given})
    except TypeError as fault:
        raise UserError(f"{path} is damaged ({fault}): remove the checkpoint's folder") from None
