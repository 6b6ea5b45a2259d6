"""DUET-VLM: fewer visual tokens, same answers.

`import duet` does not load torch; each name below is imported on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from duet.version import VERSION as __version__

_EXPORTS = {
    "load": "duet.loading",
    "attach": "duet.registry",
    "methods": "duet.method_table",
    "register": "duet.method_table",
    "detach": "duet.engine.attach",
    "record": "duet.engine.recording",
    "compile": "duet.engine.compiled",
    "loglikelihood": "duet.likelihood",
    "save": "duet.hub",
    "push_to_hub": "duet.hub",
    "look": "duet.seen",
    "Budget": "duet.budget",
    "budgets": "duet.budget",
}

__all__ = [
    "Budget",
    "__version__",
    "attach",
    "budgets",
    "compile",
    "detach",
    "load",
    "loglikelihood",
    "look",
    "methods",
    "push_to_hub",
    "record",
    "register",
    "save",
]

if TYPE_CHECKING:
    from duet.budget import Budget, budgets
    from duet.engine.attach import detach
    from duet.engine.compiled import compile
    from duet.engine.recording import record
    from duet.hub import push_to_hub, save
    from duet.likelihood import loglikelihood
    from duet.loading import load
    from duet.method_table import methods, register
    from duet.registry import attach
    from duet.seen import look


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module 'duet' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
