"""`scripts/test.sh`: what it sets up, and what it leaves alone."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "test.sh"


def stub(path: Path, complete: bool) -> Path:
    """An interpreter that notes what it is asked for, and says whether all requirements are met."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "#!/usr/bin/env bash\n"
        f'[ "$1" = - ] && exit {0 if complete else 1}\n'
        f'echo "$(basename "$(dirname "$(dirname "$0")")"): $*" >>"{path.parents[2]}/ran"\n'
        f'[ "$2" = venv ] && mkdir -p "$3/bin" && cp "$0" "$3/bin/python"\n'
        "exit 0\n"
    )
    path.chmod(0o755)
    return path


def ran(folder: Path, *words: str, **variables: str) -> list[str]:
    """Lines of what was run, as `ENVIRONMENT: arguments`."""
    clean = {"PATH": f"{folder / 'system' / 'bin'}{os.pathsep}{os.environ['PATH']}", "HOME": str(folder)}
    subprocess.run(["bash", str(SCRIPT), *words], env={**clean, **variables}, cwd="/", check=True)
    return (folder / "ran").read_text().splitlines()


def test_a_fresh_clone_gets_its_environment_and_all_that_is_missing(tmp_path: Path) -> None:
    stub(tmp_path / "system" / "bin" / "python3", complete=False)
    lines = ran(tmp_path, "-k", "golden", VENV=str(tmp_path / "made"))
    assert lines[0] == f"system: -m venv {tmp_path / 'made'}"
    assert re.fullmatch(r"made: -m pip install .*-e \.\[dev\]", lines[1])
    assert [line.split()[2] for line in lines[2:]] == ["ruff", "ruff", "mypy", "pytest"]
    assert lines[-1].endswith("-n 2 -k golden")


@pytest.mark.parametrize("how", ["PYTHON", "VIRTUAL_ENV", "VENV"])
def test_what_is_there_already_is_used_as_it_is(tmp_path: Path, how: str) -> None:
    python = stub(tmp_path / "own" / "bin" / "python", complete=True)
    stub(tmp_path / "system" / "bin" / "python3", complete=True)
    lines = ran(tmp_path, **{how: str(python) if how == "PYTHON" else str(tmp_path / "own")})
    assert [line.split()[:3] for line in lines] == [["own:", "-m", each] for each in ("ruff", "ruff", "mypy", "pytest")]


def test_what_is_missing_is_what_pyproject_says(tmp_path: Path) -> None:
    """The script's own reading of the requirements, by an interpreter that has them and one that has none."""
    body = re.search(r"<<'EOF'\n(.*?)\nEOF\n", SCRIPT.read_text(), re.DOTALL)
    assert body is not None
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())

    def complete() -> bool:
        words = [sys.executable, "-c", body[1]]
        return subprocess.run(words, cwd=tmp_path, check=False).returncode == 0

    assert complete()
    text = (tmp_path / "pyproject.toml").read_text()
    (tmp_path / "pyproject.toml").write_text(text.replace('"hypothesis",', '"hypothesis>=999",'))
    assert not complete()
    (tmp_path / "pyproject.toml").write_text(text.replace('"numpy",', '"no-such-project-at-all",'))
    assert not complete()


def test_ci_runs_the_readme_s_command() -> None:
    text = (ROOT / ".ci" / "run").read_text()
    assert "bash scripts/test.sh" in text and "pip install" not in text
