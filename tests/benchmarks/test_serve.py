"""The server's harness on its smallest shape, and its arithmetic."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

for library in ("fastapi", "uvicorn", "prometheus_client", "openai"):
    pytest.importorskip(library, reason=f"{library} is not installed: pip install -e .[dev]")

from benchmarks.serve import cpu_seconds, main, render, summarize  # noqa: E402 - needs the libraries

ROOT = Path(__file__).parents[2]


def test_rows() -> None:
    found = [
        {"first_ms": first, "whole_ms": 2 * first, "tokens": 4, "average": 64.0, "visual_tokens": 576}
        for first in (30.0, 10.0, 20.0)
    ]
    row = summarize("duet", 2, found, [(1.0, 0.3), (0.5, 0.6)])
    assert (row["requests"], row["requests_per_s"], row["tokens_per_s"]) == (3, 2.0, 8.0)
    assert row["cpu_ms"] == pytest.approx(300) and row["seconds"] == [1.0, 0.5]
    assert (row["first_ms"], row["first_p95_ms"], row["whole_ms"]) == (20.0, 30.0, 40.0)


def test_a_result_that_is_recorded_gives_its_table() -> None:
    results = sorted((ROOT / "benchmarks" / "results").glob("serve-*.json"))
    for result in results:
        text = render(json.loads(result.read_text()))
        assert text == result.with_suffix(".md").read_text()
        assert len({line.count("|") for line in text.splitlines() if line.startswith("|")}) == 1


@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="the system has no /proc")
def test_cpu_seconds_are_those_of_the_process() -> None:
    before, own = cpu_seconds(os.getpid()), time.process_time()
    assert before is not None
    while time.process_time() - own < 0.2:
        pass
    assert (cpu_seconds(os.getpid()) or 0) - before == pytest.approx(time.process_time() - own, abs=0.05)
    assert cpu_seconds(2**30) is None


def test_other_families_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--shape", "smoke-qwen2_5_vl"])
    assert "choose mini or one of LLaVA-1.5" in capsys.readouterr().err


@pytest.mark.slow
def test_the_script_writes_every_number(tmp_path: Path) -> None:
    output = tmp_path / "smoke.json"
    words = ["--shape", "smoke", "--requests", "2", "--clients", "1,2", "--rounds", "1", "--tokens", "3"]
    command = [sys.executable, "benchmarks/serve.py", *words, "--output", output]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    result = json.loads(output.read_text())
    found = [(row["budget"], row["clients"], row["requests"]) for row in result["rows"]]
    assert found == [("none", 1, 2), ("duet", 1, 2), ("none", 2, 4), ("duet", 2, 4)]
    assert all(len(row["samples"]) == row["requests"] and row["first_ms"] <= row["whole_ms"] for row in result["rows"])
    assert output.with_suffix(".md").read_text().count("\n| duet |") == 2
