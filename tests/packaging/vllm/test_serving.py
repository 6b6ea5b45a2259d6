"""vLLM with the plug-in answers as `duet` does with the same stage 1: every family and method, alone and in batches.

Run by `scripts/vllm.sh`, in an environment with vLLM.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest

import duet
from duet.budget import Budget
from duet.engine.recording import record
from duet.method_table import METHODS, find_method
from duet.registry import missing_needs
from duet_vllm.plan import OF_THE_QUESTION, SUPPORTED
from tests.packaging.vllm.checkpoints import picture, save
from tests.packaging.vllm.served import Zygote, with_duet

pytestmark = pytest.mark.vllm

#: Picture sizes (width, height) that need no or little resizing, where PIL and torchvision differ by a rounding.
SIZES = {
    "llava": [(80, 80)] * 4,
    "llava_next": [(160, 80), (160, 160), (80, 160), (160, 120)],
    "qwen2_5_vl": [(64, 48), (40, 40), (96, 64), (24, 80)],
}
QUESTIONS = ["What color is the ball?", "Is there a ring in the image?", "How many cubes are there?", "Where is it?"]
COUNTS = {"llava": (20, 6), "llava_next": (12, 4), "qwen2_5_vl": (9, 3)}


def stage1_methods() -> list[str]:
    """All methods and stage-1 parts that read no question."""
    found = [name for name, method in METHODS.items() if method.stages == (1,)]
    found += ["stage1:vscan", "stage1:tops"]
    return [name for name in found if not _needs(name) & OF_THE_QUESTION]


def _needs(name: str) -> frozenset[str]:
    part = find_method(name).reducer
    assert part is not None
    return part.build(**({"score": "cls_row"} if "score" in part.options() else {})).needs


def cases() -> list[tuple[str, str]]:
    from duet.families import model_types

    families = {name: model_types()[name] for name in SUPPORTED}
    return [
        (name, method)
        for name, family in families.items()
        for method in stage1_methods()
        if not missing_needs(find_method(method), family)
    ]


@cache
def folder(family: str) -> Path:
    return save(family, Path(mkdtemp(prefix="vllm-")) / family)


@cache
def loaded(family: str) -> tuple[Any, Any]:
    return duet.load(str(folder(family)), device="cpu")


@pytest.fixture(scope="module")
def zygote(tmp_path_factory) -> Iterator[Zygote]:
    made = Zygote(tmp_path_factory.mktemp("servers"))
    yield made
    made.close()


def setting(family: str, method: str) -> tuple[Budget, dict[str, str]]:
    """Budget and switches: merged tokens where the method makes them, positions that vLLM can express."""
    dominant, contextual = COUNTS[family]
    part = find_method(method).reducer
    assert part is not None
    merges = bool(getattr(part.build(**({"score": "cls_row"} if "score" in part.options() else {})), "contextual", 0))
    budget = Budget(dominant, contextual) if merges else Budget(dominant + contextual)
    keeps = find_method(method).positions == "keep" and family != "qwen2_5_vl"
    tiles = {"tiles": "fixed"} if (family, method) == ("llava_next", "hired") else {}
    return budget, {**tiles, **({"positions": "renumber"} if keeps else {})}


def prompts(family: str) -> list[tuple[list[Any], str]]:
    """Four questions about a picture each, one about two pictures, and another question about the first picture."""
    pictures = [picture(*size, seed) for seed, size in enumerate(SIZES[family])]
    asked = [([one], question) for one, question in zip(pictures, QUESTIONS, strict=True)]
    return [*asked, (pictures[:2], "Are they the same?"), ([pictures[0]], "What is in the corner?")]


def check(server: Any, family: str, model: Any, processor: Any) -> None:
    asked = prompts(family)
    wanted = []
    for pictures, question in asked:
        with record(model) as trace:
            prompt, new = with_duet(model, processor, pictures, question)
        image = model.config.image_token_id
        removed = prompt.count(image) - int(trace.entered[0])
        wanted.append(([token for token in prompt if token != image], len(prompt) - removed, new))
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda one: server.tokens(*one), asked[:4]))
    alone = [server.tokens(*one) for one in asked[4:]]
    image = model.config.image_token_id
    found = [([t for t in prompt if t != image], len(prompt), new) for prompt, new in [*together, *alone]]
    if family == "llava_next":  # the trace counts no newlines
        found, wanted = [(a, c) for a, _, c in found], [(a, c) for a, _, c in wanted]
    assert found == wanted


@pytest.mark.parametrize(("family", "method"), cases())
def test_tokens_equal_duet(zygote, family, method):
    budget, switches = setting(family, method)
    model, processor = loaded(family)
    environment = {
        "DUET_METHOD": method,
        "DUET_BUDGET": json.dumps({"dominant": budget.dominant, "contextual": budget.contextual}),
        "DUET_SWITCHES": json.dumps(switches),
    }
    duet.attach(model, method, budget, **switches)
    try:
        with zygote.server(folder(family), environment, *two_pictures(family)) as server:
            check(server, family, model, processor)
    finally:
        duet.detach(model)


def two_pictures(family: str) -> list[str]:
    """The option for prompts with two pictures."""
    limit = {"image": 2, "video": 0} if family == "qwen2_5_vl" else {"image": 2}
    return ["--limit-mm-per-prompt", json.dumps(limit)]


@pytest.mark.parametrize("environment", [{}, {"DUET_METHOD": "random", "DUET_BUDGET": "3"}], ids=["alone", "over"])
@pytest.mark.parametrize("family", SUPPORTED)
def test_overrides_of_a_running_server(zygote, family, environment):
    """Method and budget by `--hf-overrides`, also over those of the environment; requests together and alone."""
    given = {"dominant": 5, "contextual": 2}
    model, processor = loaded(family)
    stock = model.config.architectures[0]
    overrides = {"architectures": [f"Duet{stock}"], "duet": {"method": "visionzip", "budget": given}}
    duet.attach(model, "visionzip", Budget(**given))
    try:
        words = ["--hf-overrides", json.dumps(overrides), *two_pictures(family)]
        with zygote.server(folder(family), environment, *words) as server:
            check(server, family, model, processor)
    finally:
        duet.detach(model)


@pytest.mark.parametrize(
    ("family", "environment", "arguments", "message"),
    [
        ("llava", {"DUET_METHOD": "duet", "DUET_BUDGET": "16"}, [], "stage 2.*serve its stage 1 alone"),
        ("qwen2_5_vl", {"DUET_METHOD": "pyramiddrop", "DUET_BUDGET": "8"}, [], "stage 2.*serve it with `duet serve`"),
        (
            "llava_next",
            {"DUET_METHOD": "visionzip", "DUET_BUDGET": "8", "DUET_SWITCHES": '{"positions": "keep"}'},
            [],
            "positions=keep: vLLM numbers.*set positions=renumber",
        ),
        (
            "llava",
            {"DUET_METHOD": "visionzip", "DUET_BUDGET": "8"},
            ["--tensor-parallel-size", "2"],
            "splits the vision tower's heads.*--mm-encoder-tp-mode data",
        ),
    ],
)
def test_a_server_that_is_refused_says_why(zygote, family, environment, arguments, message):
    """The sentence is in the log of a server that ends before it opens its port."""
    with (
        pytest.raises(RuntimeError, match=f"UserError: .*{message}"),
        zygote.server(folder(family), environment, *arguments),
    ):
        pass


@pytest.mark.parametrize("family", ["llava", "llava_next"])
def test_vllm_without_a_method_serves_an_exported_checkpoint(zygote, family, tmp_path):
    from duet.checkpoints.export import export

    assert export(folder(family), tmp_path / "copy", "vllm")
    model, processor = loaded(family)
    pictures, question = prompts(family)[0]
    wanted = with_duet(model, processor, pictures, question)
    with zygote.server(tmp_path / "copy", {"DUET_METHOD": ""}) as server:
        assert server.tokens(pictures, question) == wanted
