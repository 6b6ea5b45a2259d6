"""Who may import whom: the levels of STRUCTURE.md, read from the source; and what `import duet` costs.

Imports under `TYPE_CHECKING` do not count, but for circles. Imports inside functions count like all others, but for the
entry points and optional libraries listed here.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
#: The code, and the names of the paper's README and the original repositories, which only point into it.
ALIASES = ("visionzip", "pyramiddrop", "llava", "videollava", "qwen2_5_vl")
PACKAGES = ("duet", *ALIASES)

GROUND = {
    f"duet.{name}"
    for name in (
        "types", "interfaces", "errors", "files", "version", "budget", "ops", "text", "edit", "shipped", "extras",
    )
}  # fmt: skip
METHODS = {"duet.visionzip", "duet.pyramiddrop", "duet.cover", "duet.baselines"}
ADAPTERS = {"duet.llava", "duet.videollava", "duet.qwen2_5_vl", "duet.qwen3_vl"}
BELOW_4 = GROUND | {
    "duet",
    "duet.backbones",
    "duet.checkpoints",
    "duet.engine",
    "duet.config",
    "duet.loading",
    "duet.registry",
    "duet.switches",
    "duet.method_table",
    "duet.parts",
    "duet.plugins",
    "duet.families",
}
LEVEL_4 = {
    f"duet.{name}"
    for name in (
        "data",
        "train",
        "eval",
        "report",
        "analysis",
        "inference",
        "likelihood",
        "seen",
        "hub",
        "prompt_style",
        "schedule",
    )
}
LEVEL_5 = {f"duet.{name}" for name in ("cli", "serve", "demo", "integrations")}

#: Room -> rooms that it may import; its own comes on top. Methods and adapters reach the registry as strings only.
ALLOWED: dict[str, set[str]] = {
    **dict.fromkeys(GROUND, GROUND),
    **dict.fromkeys(("duet.backbones", "duet.checkpoints"), GROUND),
    **dict.fromkeys(METHODS, GROUND),
    **dict.fromkeys(ADAPTERS, GROUND | {"duet.backbones", "duet.checkpoints", "duet.llava.prompts"}),
    "duet.engine": GROUND,
    # its names are looked up when they are used
    "duet": {"duet.version"},
    **dict.fromkeys(
        (
            *("duet.config", "duet.loading", "duet.registry", "duet.switches", "duet.method_table"),
            *("duet.parts", "duet.plugins", "duet.families"),
        ),
        GROUND
        | {"duet.backbones", "duet.checkpoints", "duet.engine"}
        | {
            "duet.config",
            "duet.registry",
            "duet.switches",
            "duet.method_table",
            "duet.parts",
            "duet.plugins",
            "duet.families",
        },
    ),
    **dict.fromkeys(LEVEL_4, BELOW_4 | LEVEL_4 | {"duet.llava.prompts"}),
    **dict.fromkeys(LEVEL_5, BELOW_4 | LEVEL_4 | LEVEL_5 | METHODS | ADAPTERS),
    **dict.fromkeys(ALIASES, METHODS | ADAPTERS),
}
#: Libraries of the lower rooms; higher ones may use any.
LIBRARIES: dict[str, set[str]] = {
    **{room: {"torch"} for room in GROUND | METHODS | {"duet.backbones"}},
    **{
        room: {"torch", "transformers", "tokenizers", "numpy", "safetensors", "huggingface_hub"}
        for room in ADAPTERS | {"duet.checkpoints"}
    },
    "duet.engine": {"torch", "transformers"},
    "duet.ops": {"torch", "triton"},  # triton: in duet/ops/triton only
    "duet": set(),
}
#: (file, import) inside a function: entry points that the paper's README prints, and libraries for one feature.
EXCEPTIONS = {
    ("duet/visionzip/__init__.py", "duet"),
    ("duet/qwen2_5_vl/__init__.py", "duet"),
    ("duet/budget/names.py", "yaml"),
    ("duet/engine/compat.py", "accelerate.utils"),
    ("duet/checkpoints/adapters.py", "peft"),
    ("duet/checkpoints/adapters.py", "peft.tuners.tuners_utils"),
    ("duet/files.py", "yaml"),
    ("duet/text/tagger.py", "spacy"),
}
#: Constructors on a class that another file implements with it: `Budget.solve`, `Backbone.from_config`.
CONSTRUCTORS = {("duet.budget.counts", "duet.budget.solver"), ("duet.budget.backbones", "duet.budget.readers")}


def files() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def room_of(module: str) -> str:
    """`duet.ops` of `duet.ops.select`, `duet.llava` of `duet.llava.adapter`; `duet.llava.prompts` is separate."""
    if module == "duet.llava.prompts":
        return module
    parts = module.split(".")
    return ".".join(parts[: 2 if parts[0] == "duet" else 1])


def imports(tree: ast.AST, inside: bool = False) -> Iterator[tuple[str, bool]]:
    """Modules that a file imports, and whether inside a function."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            for other in node.orelse:
                yield from imports(other, inside)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, inside) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, "relative imports hide the room"
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            rooms = [name for name in whole if room_of(name) in ALLOWED]
            yield from ((name, inside) for name in (rooms if node.module in PACKAGES and rooms else [node.module]))
        else:
            yield from imports(node, inside or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))


def faults(path: Path, source: str) -> list[str]:
    """Imports of a file that point up or sideways, or to a library that its room does without."""
    name = path.as_posix()
    module = name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    room = room_of(module).replace("duet.llava.prompts", "duet.llava")
    found = []
    for wanted, inside in imports(ast.parse(source)):
        top = wanted.split(".")[0]
        if top in sys.stdlib_module_names or (inside and (name, wanted) in EXCEPTIONS):
            continue
        if top in PACKAGES:
            allowed = ALLOWED[room] | {room}
            fine = room_of(wanted) in allowed or (room_of(wanted) == "duet.llava.prompts" and "duet.llava" in allowed)
        else:
            fine = room not in LIBRARIES or top in LIBRARIES[room]
        if not fine:
            found.append(f"{name} imports {wanted}")
    return found


def edges(module: str, source: str, known: Iterable[str]) -> set[str]:
    """Modules of ours that a file imports anywhere: at its top, inside functions, for types alone."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in known else str(node.module) for name in whole}
    return {name for name in found if name in known and name != module and (module, name) not in CONSTRUCTORS}


def circle(sources: dict[str, str]) -> list[str]:
    """The modules of a circle of imports; none if there is no circle."""
    try:
        TopologicalSorter({name: edges(name, source, sources) for name, source in sources.items()}).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_no_file_imports_itself_by_way_of_others():
    modules = {path: path.relative_to(ROOT).as_posix().removesuffix(".py").replace("/", ".") for path in files()}
    sources = {name.removesuffix(".__init__"): path.read_text(encoding="utf-8") for path, name in modules.items()}
    assert not circle(sources)


@pytest.mark.parametrize(
    "source", ["import a", "from a import b", "def late():\n    from a import b", "if TYPE_CHECKING:\n    import a"]
)
def test_a_circle_is_found(source):
    assert set(circle({"a": "from b import c", "b": source, "c": "import a"})) == {"a", "b"}
    assert not circle({"a": "from b import c", "b": "", "c": source})


def test_every_file_has_a_room():
    modules = {path: path.relative_to(ROOT).as_posix().removesuffix(".py").replace("/", ".") for path in files()}
    rooms = {path: room_of(module.removesuffix(".__init__")) for path, module in modules.items()}
    assert {room for room in rooms.values() if room not in ALLOWED} <= {"duet.llava.prompts"}
    assert len(rooms) > 50


@pytest.mark.parametrize("path", [path.relative_to(ROOT) for path in files()], ids=str)
def test_arrows_point_down(path):
    assert not faults(path, (ROOT / path).read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("duet/ops/select.py", "from duet.engine.trace import Trace"),
        ("duet/ops/select.py", "import numpy"),
        ("duet/engine/decoder.py", "from duet.visionzip.zip_merge import VisionZip"),
        ("duet/engine/decoder.py", "def late():\n    import duet.llava.adapter"),
        ("duet/backbones/clip.py", "import transformers"),
        ("duet/registry.py", "from duet.pyramiddrop.pyramiddrop import PyramidDrop"),
        ("duet/eval/running/runner.py", "from duet.cli import main"),
        ("duet/eval/running/runner.py", "from duet.llava.adapter import LlavaAdapter"),
        ("duet/eval/running/runner.py", "from duet import cli"),
        ("duet/visionzip/duet_merge.py", "from duet.pyramiddrop.pyramiddrop import PyramidDrop"),
        ("duet/visionzip/duet_merge.py", "import transformers"),
        ("duet/visionzip/duet_merge.py", "def late():\n    import duet"),
        ("duet/llava/adapter.py", "from duet.visionzip.zip_merge import VisionZip"),
        ("duet/llava/adapter.py", "import duet"),
    ],
)
def test_a_wrong_import_is_found(path, source):
    assert len(faults(Path(path), source)) == 1


def test_import_duet_is_light():
    code = (
        "import sys, time; start = time.process_time(); import duet; took = time.process_time() - start; "
        "heavy = sorted({'torch', 'transformers', 'numpy', 'yaml'} & set(sys.modules)); "
        "print(took, heavy, sorted(set(duet.__all__) - set(dir(duet))))"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    took, rest = run.stdout.split(maxsplit=1)
    assert float(took) < 0.3
    assert rest.strip() == "[] []"


def test_every_public_name_is_there():
    import duet

    assert all(getattr(duet, name) is not None for name in duet.__all__)
    explained = (ROOT / "docs" / "api.md").read_text(encoding="utf-8").splitlines()
    assert {f"::: duet.{name}" for name in duet.__all__ if name != "__version__"} <= set(explained)
    with pytest.raises(AttributeError, match="has no attribute 'atach'"):
        duet.atach  # noqa: B018
