"""DeepSpeed's files: ours are without the originals' traps, and a file with one is refused in a line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from duet.config import ConfigError
from duet.train.arguments import TrainingArguments
from duet.train.checks import _check_deepspeed

pytest.importorskip("deepspeed")
FILES = sorted((Path(__file__).parents[3] / "configs" / "deepspeed").glob("*.json"))


class Given:
    """The fields of the training arguments that count here."""

    def __init__(self, deepspeed: object, **rates: float) -> None:
        self.deepspeed = deepspeed
        self.own_rates = rates
        self.rates = rates
        self.mm_projector_lr = None


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_our_files_pass_with_rates_of_parts(path: Path) -> None:
    _check_deepspeed(Given(str(path), projector=1e-3))  # type: ignore[arg-type]
    settings = json.loads(path.read_text())
    assert settings["gradient_clipping"] == "auto"
    assert ("offload_optimizer" in settings["zero_optimization"]) == path.stem.endswith("offload")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"optimizer": {"type": "AdamW"}}, r"training\.rates has no effect if training\.deepspeed sets an optimizer"),
        ({"scheduler": {"type": "WarmupLR"}}, "a section 'scheduler', which overrides training.lr_scheduler_type"),
        ({"gradient_clipping": None}, 'names no gradient_clipping.*"auto"'),
        ({"zero_optimization": {"stage": 3}}, "stage3_gather_16bit_weights_on_model_save to true"),
        (
            {"zero_optimization": {"stage": 2, "gather_16bit_weights_on_model_save": True}},
            "stage3_gather_16bit_weights_on_model_save to true",
        ),
    ],
)
def test_a_trap_is_named(change: dict, said: str, tmp_path: Path) -> None:
    settings = {**json.loads(next(path for path in FILES if path.stem == "zero2").read_text()), **change}
    path = tmp_path / "zero.json"
    path.write_text(json.dumps({name: value for name, value in settings.items() if value is not None}))
    with pytest.raises(ConfigError, match=said) as error:
        _check_deepspeed(Given(str(path), projector=1e-3))  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


def test_accelerate_s_own_section_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(ConfigError, match=r"set training\.deepspeed"):
        _check_deepspeed(Given(None))  # type: ignore[arg-type]


@pytest.mark.parametrize("loss", ["mean", "token"])
def test_a_loss_has_a_name(loss: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="loss is"):
        TrainingArguments(output_dir=str(tmp_path), use_cpu=True, loss=loss)
