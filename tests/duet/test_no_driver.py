"""A torch that was built for CUDA, on a machine without a driver: what `pip install` gives most laptops on Linux."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

import duet
from duet.cli.main import main
from duet.shipped import default_model


@pytest.fixture(autouse=True)
def built_for_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    def built(check_available: bool = False) -> torch.device | None:
        return None if check_available else torch.device("cuda")

    monkeypatch.setattr(torch.accelerator, "current_accelerator", built)


def test_a_model_is_loaded_on_the_cpu() -> None:
    model, _ = duet.load(str(default_model()))
    assert model.device.type == "cpu"


def test_the_doctor_finds_no_accelerator(capsys: pytest.CaptureFixture[str]) -> None:
    main(["doctor"])
    assert "no accelerator" in capsys.readouterr().out


def test_a_device_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (80, 80)).save(tmp_path / "photo.png")
    assert main(["ask", str(tmp_path / "photo.png"), "?", "--device", "cuda"]) == 2
    assert "--device cuda: this machine has no accelerator" in capsys.readouterr().err
