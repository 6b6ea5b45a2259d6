"""Tiny models that the engine tests share; each test attaches what it needs and leaves the model stock."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import duet
from duet.engine.attachment import is_attached
from tests.plain_duet import eager
from tests.tiny_llava import PATCHES, tiny_llava

KINDS = {
    "llama": {},
    "grouped heads": {"text": "mistral"},
    "cls is visual": {"strategy": "full"},
}


@pytest.fixture(scope="session")
def tiny() -> Any:
    """The LLaMA one; stock."""
    return tiny_llava()


@pytest.fixture(scope="session")
def plain(tiny: Any) -> Any:
    """Its copy for the plain restatement."""
    return eager(tiny)


@pytest.fixture(scope="session", params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> tuple[Any, Any, int]:
    """Each kind of model, its copy for the plain restatement, and the placeholders of a picture."""
    options = KINDS[request.param]
    model = tiny_llava(**options)
    return model, eager(model), PATCHES + ("strategy" in options)


@pytest.fixture(autouse=True)
def stock_again(request: pytest.FixtureRequest) -> Iterator[None]:
    """Detach what a test left on the shared models."""
    yield
    for name in {"tiny", "kind"} & set(request.fixturenames):
        model = request.getfixturevalue(name)
        model = model[0] if isinstance(model, tuple) else model
        if is_attached(model):
            duet.detach(model)
        model.eval()
        model.zero_grad(set_to_none=True)
