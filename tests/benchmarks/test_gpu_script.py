"""scripts/gpu.sh runs every part on a CPU in its reduced form, and does not repeat what is done."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import batches, decoding, gaps, graphs

ROOT = Path(__file__).parents[2]
SMALL = ["--shape", "smoke", "--budgets", "160"]


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


def test_decoding_in_every_way(tmp_path):
    out = tmp_path / "decoding.json"
    words = ["--ways", "growing,fixed", "--new-tokens", "5", "--repeats", "2", "--output", str(out)]
    assert decoding.main([*SMALL, *words]) == 0
    rows = json.loads(out.read_text())["rows"]
    ways = [("none", "growing"), ("none", "fixed"), ("duet 160", "growing"), ("duet 160", "fixed")]
    assert [(row["name"], row["way"]) for row in rows] == ways
    assert all(len(row["samples_ms"]) == 2 * 3 and row["ms_per_token"] > 0 for row in rows)
    assert decoding.main([*SMALL, *words, "--batch-size", "2"]) == 0
    with pytest.raises(SystemExit):
        decoding.main([*SMALL, "--ways", "slow"])


def test_gaps_name_the_slowest_operators(tmp_path):
    out = tmp_path / "gaps.json"
    assert gaps.main(["--shape", "smoke", "--average", "160", "--output", str(out)]) == 0
    stock, ours = json.loads(out.read_text())["rows"]
    assert stock["name"] == "none" and ours["name"] == "duet 160"
    assert stock["wall_ms"] > 0 and stock["busy_ms"] > 0 and len(stock["slowest"]) == gaps.SHOWN


def test_first_tokens_with_compiled_code_on_both_sides(tmp_path, capsys):
    out = tmp_path / "graphs.json"
    words = [*SMALL, "--repeats", "2", "--warmup", "0", "--backend", "eager", "--output", str(out)]
    assert graphs.main([*words, "--ways", "eager,compiled"]) == 0
    rows = json.loads(out.read_text())["rows"]
    assert [(row["name"], row["way"]) for row in rows] == [
        ("none", "eager"), ("none", "compiled"), ("duet 160", "eager"), ("duet 160", "compiled"),
    ]  # fmt: skip
    assert all(len(row["samples_ms"]) == 2 and row["first_s"] > 0 for row in rows)
    stock, full, ours, fast = rows
    assert stock["speed_up"] == full["speed_up"] == 1  # the full model's compiled code is what ours is held against
    assert ours["speed_up"] == stock["ms"] / ours["ms"] and fast["speed_up"] == full["ms"] / fast["ms"]
    assert "| duet 160 | compiled |" in out.with_suffix(".md").read_text()
    with pytest.raises(SystemExit):
        graphs.main([*words, "--ways", "slow"])
    assert "choose among eager, torch, compiled" in capsys.readouterr().err


def test_the_fastest_stock_way_is_the_yardstick():
    def row(name, way, ms):
        return {"name": name, "way": way, "ms": ms}

    rows = [row("none", "eager", 8.0), row("none", "torch", 4.0), row("none", "compiled", 5.0)]
    found = graphs._against_stock([*rows, row("duet 64", "eager", 4.0), row("duet 64", "compiled", 2.0)])
    assert [one["speed_up"] for one in found] == [1, 1, 0.8, 2, 2]


@pytest.mark.parametrize("words", [["--sizes", "0"], ["--new-tokens", "1"]])
def test_numbers_out_of_range(words, capsys):
    with pytest.raises(SystemExit):
        batches.main([*SMALL, *words])
    assert "at least" in capsys.readouterr().err


@pytest.mark.slow
def test_the_script_runs_every_part_once(tmp_path):
    surroundings = {**os.environ, "PYTHON": sys.executable}
    script = ["bash", str(ROOT / "scripts" / "gpu.sh"), "--device", "cpu", "--size", "smoke", "--out", str(tmp_path)]
    for expected in ("prefill: ", "prefill-smoke: done"):
        done = subprocess.run(script, env=surroundings, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        assert expected in done.stdout
    assert len(list(tmp_path.glob("*.md"))) >= 6


def gpu_script(out: Path, *words: str, python: str = sys.executable) -> subprocess.CompletedProcess[str]:
    script = ["bash", str(ROOT / "scripts" / "gpu.sh"), "--out", str(out), *words]
    return subprocess.run(script, env={**os.environ, "PYTHON": python}, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [(["everything"], "unknown part everything"), (["--device", "tpu"], "choose cuda"), (["--out"], "needs a value")],
)
def test_wrong_words_are_refused(tmp_path, words, sentence):
    wrong = gpu_script(tmp_path, *words)
    assert wrong.returncode == 2 and sentence in wrong.stderr


def test_a_part_that_fails_does_not_end_the_others(tmp_path):
    done = gpu_script(tmp_path, "--device", "cpu", "prefill", "room", "tests", python="false")
    assert done.returncode == 1
    assert "failed or out of time: prefill room;" in done.stderr and "tests: 0 s" in done.stdout
