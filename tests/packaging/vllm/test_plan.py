"""The vLLM plug-in without vLLM: settings, refusals, and counts that equal what the engine keeps."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

import duet
from duet.budget import Budget
from duet.errors import UserError
from duet.method_table import METHODS
from duet_vllm import MODELS
from duet_vllm.checks import check_settings
from duet_vllm.plan import OF_THE_QUESTION, read_plan
from tests.tiny_llava import tiny_llava
from tests.tiny_llava_next import tiny_llava_next
from tests.tiny_qwen import tiny_qwen

ROOT = Path(__file__).parents[3]


def llava(**duet_settings) -> LlavaConfig:
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(image_size=336, patch_size=14, num_hidden_layers=24), text_config=LlamaConfig()
    )
    if duet_settings:
        config.duet = duet_settings
    return config


@pytest.fixture(autouse=True)
def no_settings(monkeypatch):
    for name in ("DUET_METHOD", "DUET_BUDGET", "DUET_SWITCHES"):
        monkeypatch.delenv(name, raising=False)


def test_it_needs_no_engine_and_no_transformers():
    code = (
        "import sys; import duet_vllm, duet_vllm.plan, duet_vllm.positions, duet_vllm.reduce, duet_vllm.towers; "
        "print([name for name in sys.modules if name.startswith(('duet.engine', 'transformers'))])"
    )
    path = {"PYTHONPATH": f"{ROOT / 'packaging' / 'vllm'}:{ROOT}", "PATH": ""}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=path)
    assert run.stdout.strip() == "[]"


def test_no_file_names_the_engine():
    for path in (ROOT / "packaging" / "vllm" / "duet_vllm").glob("*.py"):
        lines = path.read_text(encoding="utf-8").splitlines()
        assert not [line for line in lines if line.startswith(("from duet.engine", "import duet.engine"))], path


def test_every_class_is_where_the_registry_looks():
    for entry in MODELS.values():
        module, name = entry.split(":")
        text = (ROOT / "packaging" / "vllm" / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")
        assert f"class {name}(" in text


@pytest.mark.parametrize(
    ("budget", "kept"),
    [
        ("llava15_128", 128),
        ("64", 64),
        (64, 64),
        ('{"dominant": 54, "contextual": 10}', 64),
        ({"dominant": 0.25}, 144),
    ],
)
def test_budgets_by_environment_and_overrides(monkeypatch, budget, kept):
    assert read_plan(llava(method="visionzip_c", budget=budget)).count([576]) == kept
    if isinstance(budget, str):
        monkeypatch.setenv("DUET_METHOD", "visionzip_c")
        monkeypatch.setenv("DUET_BUDGET", budget)
        assert read_plan(llava()).count([576]) == kept


def test_overrides_win_over_the_environment(monkeypatch):
    monkeypatch.setenv("DUET_METHOD", "scope")
    monkeypatch.setenv("DUET_BUDGET", "10")
    assert read_plan(llava(method="random", budget=20)).method == "random"


def test_switches_reach_the_method(monkeypatch):
    monkeypatch.setenv("DUET_METHOD", "scope")
    monkeypatch.setenv("DUET_BUDGET", "10")
    monkeypatch.setenv("DUET_SWITCHES", json.dumps({"alpha": 2.5, "score": "column_mean"}))
    reducer = read_plan(llava()).reducer
    assert (reducer.alpha, reducer.score) == (2.5, "column_mean")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "no method: set DUET_METHOD"),
        ({"method": "none"}, "keeps all tokens"),
        ({"method": "duet", "budget": "llava15_128"}, r"stage 2.*stage1:duet_c_all, budget.only\(1\).*duet serve"),
        ({"method": "pyramiddrop", "budget": "llava15_128"}, "stage 2.*same tokens: serve it with `duet serve`"),
        ({"method": "cdpruner", "budget": 64}, "reads the question.*duet serve"),
        ({"method": "visionzip", "budget": 64, "positions": "keep"}, "positions=keep: vLLM numbers"),
        ({"method": "fastvid", "budget": 64}, "keeps them as released.*positions=renumber"),
        ({"method": "visionzip", "budget": {"dominant": 577}}, "577 tokens of 576.*nothing to reduce"),
        ({"method": "visionzip", "budget": {"dominant": 9, "layers": [8], "ratios": [0.5]}}, r"budget.only\(1\)"),
        ({"method": "visionzip", "budget": {"dominant": 9, "entry": 4}}, "counts alone.*duet serve"),
        ({"method": "visionzip", "budget": {"dominant": 9, "frozen": 8}}, "counts alone.*duet serve"),
        ({"method": "visionzip", "budget": {"domninant": 9}}, "unknown entry 'domninant'.*dominant"),
        ({"method": "visionzip", "budget": "{9}"}, "budget is not JSON"),
        ({"method": "visionzip", "budget": "llava15_129"}, "unknown budget 'llava15_129'"),
        ({"method": "visionzip", "budget": 64, "colour": 1}, "unknown switch 'colour'"),
        ({"method": "visionzip"}, "needs a budget"),
        ({"method": "cover", "budget": 64, "enough": 0.9}, "set enough=1"),
    ],
)
def test_refusals(settings, message):
    with pytest.raises(UserError, match=message):
        read_plan(llava(**settings))


def test_counts_that_depend_on_the_picture_are_refused():
    config = tiny_llava_next().config
    config.duet = {"method": "hired", "budget": {"dominant": 7}}
    with pytest.raises(UserError, match="set tiles=fixed"):
        read_plan(config)
    config.duet["tiles"] = "fixed"
    assert read_plan(config).reducer.tiles == "fixed"


def test_another_family_is_refused():
    with pytest.raises(UserError, match="duet-vllm serves llava, llava_next, qwen2_5_vl"):
        read_plan(SimpleNamespace(model_type="qwen3_vl"))


def vllm_config(**settings) -> SimpleNamespace:
    given = {"mm_encoder_tp_mode": "weights", "enable_mm_embeds": False, "video_pruning_rate": None, **settings}
    return SimpleNamespace(
        model_config=SimpleNamespace(multimodal_config=SimpleNamespace(**given)),
        parallel_config=SimpleNamespace(tensor_parallel_size=settings.get("ranks", 1)),
        compilation_config=SimpleNamespace(compile_mm_encoder=settings.get("compiled", False)),
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ranks": 2}, "--tensor-parallel-size 2 splits the vision tower.*--mm-encoder-tp-mode data"),
        ({"enable_mm_embeds": True}, "--enable-mm-embeds"),
        ({"video_pruning_rate": 0.5}, "--video-pruning-rate"),
        ({"compiled": True}, "compile_mm_encoder"),
    ],
)
def test_settings_of_vllm_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        check_settings(vllm_config(**settings))


def test_a_whole_tower_on_every_rank_is_served():
    check_settings(vllm_config(ranks=2, mm_encoder_tp_mode="data"))


#: Sizes of the units of one picture, in visual tokens, and the model.
PICTURES = {
    "llava": (tiny_llava, 0),
    "llava_next": (tiny_llava_next, 0),
    "qwen2_5_vl": (tiny_qwen, 0),
}


@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if method.stages == (1,)])
@pytest.mark.parametrize("family", list(PICTURES))
def test_a_plan_takes_the_parts_that_attach_takes(family, method):
    model = PICTURES[family][0]()
    config = model.config
    budget = Budget(5, 2) if method.startswith("visionzip") else Budget(7)
    switches = {"positions": "renumber"} if family != "qwen2_5_vl" else {}
    config.duet = {"method": method, "budget": budget.__dict__, **switches}
    try:
        plan = read_plan(config)
    except UserError as error:
        assert any(words in str(error) for words in ("reads the question", "cannot provide", "set tiles=fixed"))
        return
    assert not plan.reducer.needs & OF_THE_QUESTION
    del config.duet
    duet.attach(model, method, budget, **switches)
    from duet.engine.attachment import attached

    compression = attached(model).compression
    assert (plan.reducer, plan.stage1) == (compression.reducer, compression.stage1)
    assert plan.keeps_positions != compression.renumber
    assert plan.count([torch.Size([4, 4]).numel()]) == 7
