"""scripts/gpu.sh runs every part on a CPU in its reduced form, and does not repeat what is done."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import batches, gaps

ROOT = Path(__file__).parents[2]
SMALL = ["--shape", "smoke", "--average", "160"]


def test_throughput_by_batch_size(tmp_path):
    out = tmp_path / "batches.json"
    words = [*SMALL, "--sizes", "1,2", "--repeats", "1", "--new-tokens", "2", "--output", str(out)]
    assert batches.main(words) == 0
    rows = json.loads(out.read_text())["rows"]
    assert [(row["batch_size"], row["name"]) for row in rows] == [
        (1, "none"), (1, "duet 160"), (2, "none"), (2, "duet 160"),
    ]  # fmt: skip
    stock, ours = rows[:2]
    assert ours["cache_mib"] < stock["cache_mib"] and ours["requests_per_gib"] > stock["requests_per_gib"]
    assert stock["speed_up"] == 1
    assert "| 2 | duet 160 |" in out.with_suffix(".md").read_text()


def test_gaps_name_the_slowest_operators(tmp_path):
    out = tmp_path / "gaps.json"
    assert gaps.main([*SMALL, "--output", str(out)]) == 0
    stock, ours = json.loads(out.read_text())["rows"]
    assert stock["name"] == "none" and ours["name"] == "duet 160"
    assert stock["wall_ms"] > 0 and stock["busy_ms"] > 0 and len(stock["slowest"]) == gaps.SHOWN


@pytest.mark.parametrize("words", [["--sizes", "0"], ["--new-tokens", "1"]])
def test_numbers_out_of_range(words, capsys):
    with pytest.raises(SystemExit):
        batches.main([*SMALL, *words])
    assert "at least" in capsys.readouterr().err


@pytest.mark.slow
def test_the_script_runs_every_part_once(tmp_path):
    surroundings = {**os.environ, "DEVICE": "cpu", "SIZE": "smoke", "OUT": str(tmp_path), "PYTHON": sys.executable}
    for expected in ("prefill: ", "prefill-smoke: done"):
        done = subprocess.run(
            ["bash", str(ROOT / "scripts" / "gpu.sh")], env=surroundings, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        assert expected in done.stdout
    assert len(list(tmp_path.glob("*.md"))) >= 6
    wrong = subprocess.run(
        ["bash", str(ROOT / "scripts" / "gpu.sh"), "everything"], env=surroundings, capture_output=True, text=True
    )
    assert wrong.returncode == 2 and "unknown part everything" in wrong.stderr
