"""The harness on its smallest shape, all parts of it once; and its memory meter against sizes that are known."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from benchmarks.configurations import configurations
from benchmarks.families import Asked, build_model, build_prompt, family_of
from benchmarks.measure import Stopwatch, peak_bytes
from benchmarks.optimizers import SHARE, bytes_needed, choose_optimizer, make_optimizer
from benchmarks.prefill import main
from benchmarks.report import check_targets
from benchmarks.runs import choose_trained, run_prompt, run_training, train_step
from benchmarks.shapes import SHAPES
from duet.errors import UserError

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model():
    return build_model(SHAPES["smoke"], CPU, torch.float32)


def test_script_writes_every_number(tmp_path: Path) -> None:
    output = tmp_path / "smoke.json"
    command = [
        sys.executable,
        "benchmarks/prefill.py",
        "--shape",
        "smoke",
        "--repeats",
        "2",
        "--decode",
        "2",
        "--warmup",
        "0",
    ]
    command += ["--methods", "none,visionzip,pyramiddrop,duet", "--budgets", "160", "--output", str(output)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    result = json.loads(output.read_text())
    names = [(row["method"], round(row["tokens"])) for row in result["prefill"]]
    assert names[0] == ("none", 576)
    assert names[1:] == [("visionzip", 160), ("pyramiddrop", 160), ("duet", 160)]
    assert [row["method"] for row in result["training"]] == [row["method"] for row in result["prefill"]]
    for row in result["prefill"] + result["training"]:
        assert len(row["samples_ms"]) == 2
        assert row["flops"] > 0 and row["peak_bytes"] > 0
    base, *others = result["prefill"]
    assert base["overhead_ms"] == 0 and base["speed_up"] == 1 == base["ideal_speed_up"]
    assert all(row["overhead_ms"] > 0 and row["tower_ms"] > 0 and row["decode_ms"] > 0 for row in others)
    assert all(0 < row["tower_ms"] + row["overhead_ms"] < row["prefill_ms"] for row in others)
    assert all(row["ideal_speed_up"] > row["ideal_speed_up_causal"] > 1 for row in others)
    assert all(row["of_ideal_causal"] == row["speed_up"] / row["ideal_speed_up_causal"] for row in others)
    assert len(result["targets"]) == 3
    assert output.with_suffix(".md").read_text().count("| duet | ") == 2
    assert output.with_suffix(".md").read_text().count("| reached, causal |") == 1
    assert not any(str(ROOT) in text for text in (output.read_text(), output.with_suffix(".md").read_text()))


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--methods", "visionsip"], "did you mean"),
        (["--budgets", "900"], "cannot be reached"),
        (["--repeats", "0"], "--repeats is 0"),
        (["--text", "20"], "--text 20"),
        (["--parts", "decode"], "--parts decode"),
        (["--patches", "400"], "--patches has no effect on Llava"),
        (["--frames", "8", "--shape", "smoke-qwen2_5_vl"], "--frames has no effect on Qwen2_5"),
        (["--patches", "402", "--shape", "smoke-qwen2_5_vl"], "--patches 402"),
        (["--clock", "process", "--threads", "2"], "--clock process"),
    ],
)
def test_mistakes_are_explained(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--shape", "smoke", "--parts", "training", *arguments])
    assert stop.value.code == 2
    assert words in capsys.readouterr().err


SMOKE = [name for name in SHAPES if name.startswith("smoke")]


@pytest.mark.parametrize("shape", SMOKE)
def test_cache_bytes_equal_the_budget(shape: str) -> None:
    """For every family, the caches hold the planned counts, separators and frames included."""
    model = build_model(SHAPES[shape], CPU, torch.float32)
    prompt = build_prompt(model, Asked(rows=2), text=40)
    for run in configurations(model, prompt, ["visionzip", "pyramiddrop", "duet"], SHAPES[shape].averages):
        watch = Stopwatch(CPU)
        with run.attached(model):
            found = run_prompt(model, prompt, 1, watch, compressed=run.wanted is not None)
        expected = run.budget.kv_bytes(run.backbone, text=prompt.text, bytes_per_value=4)
        assert found["kv_bytes"] == 2 * sum(expected), run.name
        assert found["tower_ms"] > 0
        assert (found["overhead_ms"] > 0) == (run.wanted is not None)


@pytest.mark.parametrize("shape", SMOKE)
def test_a_training_step_leaves_the_towers_alone(shape: str) -> None:
    model = build_model(SHAPES[shape], CPU, torch.float32)
    prompt = build_prompt(model, Asked(), text=40)
    _, run = configurations(model, prompt, ["duet"], SHAPES[shape].averages)
    with run.attached(model):
        train_step(model, prompt, answer=2)
    assert all(weight.grad is None for tower in family_of(model).towers_of(model) for weight in tower.parameters())
    assert model.lm_head.weight.grad is not None


@pytest.mark.parametrize("trained", ["lora", "projector"])
def test_a_training_step_of_a_part(trained: str) -> None:
    model = build_model(SHAPES["smoke"], CPU, torch.float32)
    prompt = build_prompt(model, Asked(), text=40)
    choose_trained(model, trained)
    _, run = configurations(model, prompt, ["duet"], [160])
    with run.attached(model):
        train_step(model, prompt, answer=2)
    learned = {name for name, weight in model.named_parameters() if weight.grad is not None}
    kinds = {"lora" if ".lora_" in name else name.split(".")[1] for name in learned}
    assert kinds == {"multi_modal_projector"} | ({"lora"} if trained == "lora" else set())
    assert all("language_model" in name for name in learned if ".lora_" in name)
    whole, part = (run.training_flops(prompt.text, 2, frozen=frozen) for frozen in (False, True))
    assert part < whole < 1.5 * part
    with pytest.raises(UserError, match="part of its tower"):
        choose_trained(build_model(SHAPES["smoke-qwen2_5_vl"], CPU, torch.float32), trained)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_a_training_step_with_its_update(model, name: str) -> None:
    prompt = build_prompt(model, Asked(), text=40)
    optimizer, before = make_optimizer(model, name), model.lm_head.weight.detach().clone()
    found = run_training(model, prompt, 2, Stopwatch(CPU), optimizer)
    assert 0 < found["update_ms"] < found["step_ms"]
    assert torch.equal(model.lm_head.weight, before), "configurations share the weights"
    weights = [one for group in optimizer.param_groups for one in group["params"]]
    assert weights and all(one.requires_grad for one in weights)
    assert (len(optimizer.state) == len(weights)) is (name == "adamw")
    assert run_training(model, prompt, 2, Stopwatch(CPU))["update_ms"] == 0


def test_the_optimizer_that_fits(model, monkeypatch) -> None:
    assert choose_optimizer(model, "auto") == "adamw" and make_optimizer(model, "none") is None
    with pytest.raises(UserError, match="needs a GPU and bitsandbytes"):
        choose_optimizer(model, "adamw8bit")
    trained = sum(one.numel() for one in model.parameters() if one.requires_grad)
    weights = sum(one.nbytes for one in model.parameters())
    assert bytes_needed(model, "adamw") == weights + 12 * trained
    assert bytes_needed(model, "adamw8bit") == weights + 6 * trained
    with torch.device("meta"):
        fake = torch.nn.Linear(8, 8)
    monkeypatch.setattr(torch.nn.Parameter, "device", torch.device("cuda"))
    need = bytes_needed(fake, "adamw") / SHARE
    for room, name in ((need, "adamw"), (need - 1, "sgd")):
        card = type("Card", (), {"total_memory": room})
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device, card=card: card)
        assert choose_optimizer(fake, "auto") == name


@pytest.mark.parametrize(
    ("line", "tokens"),
    [
        ("--shape smoke-qwen2_5_vl --patches 1024 --budgets 64", 256),
        ("--shape smoke-videollava --frames 4 --budgets 64", 4 * 257),
    ],
)
def test_memory_alone_of_other_sizes(line: str, tokens: int, tmp_path: Path) -> None:
    output = tmp_path / "memory.json"
    assert main([*line.split(), "--parts", "memory", "--methods", "visionzip", "--output", str(output)]) == 0
    base, ours = json.loads(output.read_text())["memory"]
    assert (base["tokens"], base["share"], ours["tokens"]) == (tokens, 1, 64)
    assert ours["share"] == ours["peak_bytes"] / base["peak_bytes"]
    assert f"| {ours['share']:.2f}x |" in output.with_suffix(".md").read_text()


def test_baseline_runs_one_tower_layer_more(model) -> None:
    prompt = build_prompt(model, Asked(), text=40)
    base, duet = configurations(model, prompt, ["duet"], [100])
    assert base.backbone.tower.layers == duet.backbone.tower.layers == 2
    towers = [found.budget.flops(found.backbone, text=64).tower for found in (base, duet)]
    assert towers[0] - towers[1] == pytest.approx(towers[1] / 2, rel=0.25)  # and the patch embedding


def test_attached_configuration_leaves_a_stock_model(model) -> None:
    _, duet = configurations(model, build_prompt(model, Asked(), text=40), ["duet"], [100])
    with duet.attached(model):
        assert "forward" in vars(model.model.language_model)
    assert "forward" not in vars(model.model.language_model)


def test_peak_bytes_sees_what_lives_at_the_same_time() -> None:
    ones = torch.ones(1000, 250)

    def two_at_a_time() -> torch.Tensor:
        first = ones + 1
        second = first + 1
        del first
        return second + 1

    assert peak_bytes(CPU, two_at_a_time) == pytest.approx(2 * ones.nbytes, rel=1e-3)
    assert peak_bytes(CPU, lambda: None) == 0


def test_stopwatch_tells_parts_from_what_lies_inside_them() -> None:
    watch = Stopwatch(CPU)
    inner = watch.around("inner", time.sleep)
    watch.run("outer", lambda: [inner(0.02), watch.run("outer", time.sleep, 0.01)])
    assert 20 <= watch.total_ms("inner") == watch.own_ms("inner")
    assert watch.own_ms("outer") >= 10
    assert watch.total_ms("outer") > watch.own_ms("outer") + watch.own_ms("inner")
    assert watch.total_ms("never") == 0


def test_targets_look_at_duet_only() -> None:
    base = {"method": "none", "prefill_ms": 100.0, "overhead_ms": 0.0, "peak_bytes": 10, "of_ideal": 1.0}
    good = {"method": "duet", "prefill_ms": 40.0, "overhead_ms": 3.0, "peak_bytes": 10, "of_ideal": 0.85}
    other = {"method": "visionzip", "prefill_ms": 40.0, "overhead_ms": 30.0, "peak_bytes": 99, "of_ideal": 0.1}
    assert all(check_targets([base, other, good]).values())
    for change in ({"of_ideal": 0.84}, {"overhead_ms": 3.1}, {"peak_bytes": 11}):
        assert list(check_targets([base, {**good, **change}]).values()).count(False) == 1
