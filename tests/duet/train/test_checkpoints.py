"""Which checkpoint a run continues from, and which it may not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from duet.errors import UserError
from duet.train.checkpoints import (
    Layout,
    check_resume,
    find_checkpoints,
    forget_after,
    keep_newest,
    mark_begun,
    mark_complete,
    newest_complete,
    remove_incomplete,
)

LAYOUT = Layout("zero-3", 8, 128, 0, True, "llava", "duet_c_all")


def checkpoint(output: Path, step: int, complete: bool = True) -> Path:
    folder = output / f"checkpoint-{step}"
    mark_begun(folder)
    (folder / "trainer_state.json").write_text("{}")
    if complete:
        mark_complete(folder, step, LAYOUT)
    return folder


def test_a_kill_while_saving_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    assert newest_complete(tmp_path) is None
    whole = checkpoint(tmp_path, 90)
    cut = checkpoint(tmp_path, 100, complete=False)
    assert newest_complete(tmp_path) == whole
    assert remove_incomplete(tmp_path) == [cut]
    assert find_checkpoints(tmp_path) == [whole]


def test_steps_are_numbers(tmp_path: Path) -> None:
    folders = [checkpoint(tmp_path, step) for step in (900, 1000)]
    (tmp_path / "checkpoint-best").mkdir()
    assert newest_complete(tmp_path) == folders[1]
    keep_newest(tmp_path, 1)
    assert find_checkpoints(tmp_path) == folders[1:]


def test_checkpoints_of_older_versions_count(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint-5"
    folder.mkdir()
    (folder / "trainer_state.json").write_text("{}")
    assert newest_complete(tmp_path) == folder and not remove_incomplete(tmp_path)
    check_resume(folder, LAYOUT)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rows_per_step": 64}, "rows per step: 128 there, 64 here"),
        ({"seed": 1}, "seed: 0 there, 1 here"),
        ({"sharding": "fsdp"}, "sharding zero-3, this one has fsdp"),
        ({"method": "none"}, "a run with duet_c_all, this one has none: set compression.method as before"),
        ({"family": "qwen2_vl"}, "a run with llava, this one has qwen2_vl: set model.model_name_or_path as before"),
        ({"processes": 4}, "written by 8 processes, this run has 4.*start 8"),
    ],
)
def test_another_run_is_refused_in_a_sentence(tmp_path: Path, change: dict, said: str) -> None:
    folder = checkpoint(tmp_path, 5)
    check_resume(folder, LAYOUT)
    with pytest.raises(UserError, match=said) as error:
        check_resume(folder, replace(LAYOUT, **change))
    assert "another output_dir" in str(error.value) and "\n" not in str(error.value)


def test_fsdp_and_plain_runs_continue_on_any_number_of_processes(tmp_path: Path) -> None:
    for sharding in ("fsdp", "none"):
        folder = tmp_path / f"checkpoint-{len(sharding)}"
        layout = replace(LAYOUT, sharding=sharding)
        mark_begun(folder)
        mark_complete(folder, 4, layout)
        check_resume(folder, replace(layout, processes=2))


def test_the_log_goes_back_to_the_checkpoint(tmp_path: Path) -> None:
    log = tmp_path / "metrics.jsonl"
    log.write_text("".join(json.dumps({"step": step}) + "\n" for step in (1, 2, 3)) + '{"step": 4, "lo')
    forget_after(log, 2)
    assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == [1, 2]
