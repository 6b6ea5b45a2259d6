"""`duet sweep`: what it says about grid files that it cannot use."""

from __future__ import annotations

from pathlib import Path

import pytest

from duet.cli.main import main


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such configuration file: {path}"),
        ("models: {a: b", "{path} is not valid YAML"),
        ("- pope", "{path} must hold a mapping of keys to values, not a list"),
        ("", "{path} is empty"),
    ],
)
def test_grid_files_that_are_none(
    content: str | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "grid.yaml"
    if content is not None:
        path.write_text(content)
    assert main(["sweep", str(path)]) == 2
    assert capsys.readouterr().err.startswith(f"duet: error: {message.format(path=path)}")


def test_overrides_may_follow_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text("models: {a: b}\n")
    assert main(["sweep", str(path), "tasks=[pope]", "--dry-run", "methods=[duet]", "data=nowhere"]) == 2
    assert "output is missing" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["sweep", str(path), "--dry-run", "--limit=3"])
    assert "unrecognized arguments: --limit=3" in capsys.readouterr().err
