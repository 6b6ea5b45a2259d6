"""The doctor's single findings on made-up installations, and its whole report on this one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from duet.cli import doctor
from duet.cli.main import main


def package(folder: Path, name: str) -> Path:
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").touch()
    return folder


def test_a_name_that_leads_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(package(tmp_path / "ours", "seen_here"))
    assert doctor.check_name("seen_here", tmp_path / "ours", []).state == doctor.OK


def test_a_name_that_leads_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package(tmp_path / "ours", "taken_away")
    monkeypatch.syspath_prepend(package(tmp_path / "theirs", "taken_away"))
    finding = doctor.check_name("taken_away", tmp_path / "ours", ["their-llava"])
    assert finding.state == doctor.BROKEN
    assert str(tmp_path / "theirs") in finding.text and "uninstall their-llava" in finding.text


def test_a_name_that_is_theirs_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(package(tmp_path / "theirs", "only_theirs"))
    finding = doctor.check_name("only_theirs", tmp_path / "ours", ["them"])
    assert finding.state == doctor.OK and "not used here" in finding.text


def test_another_project_in_the_same_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(package(tmp_path, "shared_name"))
    monkeypatch.setattr(doctor, "_site", lambda project: tmp_path)
    assert doctor.check_name("shared_name", tmp_path, ["them"]).state == doctor.BROKEN
    monkeypatch.setattr(doctor, "_site", lambda project: tmp_path / "elsewhere")
    assert doctor.check_name("shared_name", tmp_path, ["them"]).state == doctor.NOTE


@pytest.mark.parametrize(
    ("line", "state"),
    [("pytest", "ok"), ("pytest>=1", "ok"), ("pytest<1", "BROKEN"), ("no-such-project-at-all>=2", "BROKEN")],
)
def test_requirements(line: str, state: str) -> None:
    finding = doctor.check_requirement(Requirement(line))
    assert finding.state == state
    if state == "BROKEN":
        assert line.split("project-at-all")[-1].removeprefix("pytest") in finding.text


def test_an_extra_made_of_others_is_what_they_are() -> None:
    extras = {"duet-vlm[tests,ghost]": "all", "pytest": "tests", "no-such-thing": "ghost"}
    lines = ["ruff", *(f'{name}; extra == "{extra}"' for name, extra in extras.items())]
    requirements = [Requirement(line) for line in lines]
    assert doctor.check_extra("tests", requirements).state == doctor.OK
    finding = doctor.check_extra("all", requirements)
    assert finding.state == doctor.NOTE
    assert finding.text.startswith("no-such-thing absent, pytest ") and 'install "duet-vlm[all]"' in finding.text
    assert "ruff" not in finding.text


def test_something_broken_sets_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "_imports", lambda: [doctor.Finding(doctor.BROKEN, "import", "no torch")])
    assert main(["doctor", "--json"]) == 1
    assert {"state": "BROKEN", "subject": "import", "text": "no torch"} in json.loads(capsys.readouterr().out)


def test_report_on_this_installation(capsys: pytest.CaptureFixture[str]) -> None:
    main(["doctor"])
    report = capsys.readouterr().out
    for subject in ("duet", "python", "import", "devices", "attention", "name llava", "name videollava", "small model"):
        assert f" {subject} " in report
