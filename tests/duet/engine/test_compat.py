"""Private upstream names are in one file: no other module of the product reads one."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[3]
COMPAT = ROOT / "duet/engine/compat.py"
PACKAGES = ("duet", "visionzip", "pyramiddrop", "llava", "videollava", "qwen2_5_vl")
LOOKUPS = ("getattr", "setattr", "hasattr", "delattr")


def modules() -> Iterator[tuple[Path, ast.Module]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield path, ast.parse(path.read_text(encoding="utf-8"))


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def own_names() -> set[str]:
    """Every private name that the project itself makes: functions, classes, variables, attributes, modules."""
    found = set()
    for path, tree in modules():
        found |= {path.stem, path.parent.name}
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                found.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found.add(node.id)
            elif path != COMPAT and is_own(node):
                found.add(node.attr)
    # a method that lmms-eval's base class offers to its models
    return found | {"_resolve_system_prompt"}


def is_own(node: ast.AST) -> bool:
    """Whether an attribute of `self` or `cls` is set."""
    if not isinstance(node, ast.Attribute) or not isinstance(node.ctx, ast.Store):
        return False
    return isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")


def read_names(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Private names that a module reads: attributes, imports, and strings given to getattr and its like."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.lineno, node.attr
        elif isinstance(node, (ast.ImportFrom, ast.Import)):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            yield from ((node.lineno, part) for name in names for part in name.split("."))
        elif isinstance(node, ast.Call) and getattr(node.func, "id", None) in LOOKUPS:
            names = [name.value for name in node.args[1:2] if isinstance(name, ast.Constant)]
            yield from ((node.lineno, name) for name in names if isinstance(name, str))


def test_no_other_module_reads_a_private_upstream_name():
    known = own_names()
    found = [
        f"{path.relative_to(ROOT)}:{line} {name}"
        for path, tree in modules()
        if path != COMPAT
        for line, name in read_names(tree)
        if private(name) and name not in known
    ]
    assert not found, "move these to duet/engine/compat.py: " + ", ".join(found)


def test_what_compat_names_exists_upstream():
    from transformers import LlavaForConditionalGeneration, LlavaProcessor, Qwen2_5_VLForConditionalGeneration
    from transformers.generation import utils

    from duet.engine.compat import GENERATE

    # transformers 5.17 encodes no pictures ahead of `generate`
    known = [name for name in GENERATE.values() if name in inspect.getsource(utils)]
    assert set(GENERATE.values()) - set(known) <= {"_supports_mm_encoder_outputs"}
    for model in (LlavaForConditionalGeneration, Qwen2_5_VLForConditionalGeneration):
        assert all(hasattr(model, name) for name in known)
    assert hasattr(LlavaProcessor, "_get_num_multimodal_tokens")
