"""Files of the user are read by one guarded reader per format: whoever reads one another way is found here."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("duet",)
#: What opens files or parses their text -> the files that may.
GUARDED = {
    "json.load": set(),
    "json.loads": {"duet/files.py"},
    "yaml.safe_load": set(),
    "yaml.load": {"duet/files.py"},
    "safe_open": {"duet/checkpoints/files.py"},
    "load_file": set(),
    "torch.load": {"duet/checkpoints/files.py"},
    # headers alone, for many files at once
    "Image.open": {"duet/data/pictures.py", "duet/data/media_check.py", "duet/serve/media.py"},
    "av.open": {"duet/data/video.py", "duet/data/media_check.py"},
    "pickle.load": set(),
    "pickle.loads": set(),
    "np.load": set(),
}
#: Places that parse something else, and answer for it themselves.
OTHERS = {
    "duet/budget/names.py",  # the budgets that are installed with the project
    "duet/eval/files/layout.py",  # the same of the benchmarks
    "duet/eval/reading.py",  # a line that duet/files.py has read before
    "duet/eval/running/answer_files.py",  # what a run wrote
    "duet/eval/running/provenance.py",
    "duet/eval/running/runner.py",
    "duet/report/training.py",
    "duet/train/ledger.py",
    "duet/train/checkpoints.py",
    "duet/train/features.py",
    "duet/data/lengths.py",
    "duet/data/original/tokenizer.py",  # what a tokenizer says of itself
    "duet/integrations/vlmevalkit.py",  # the reply of our server
    "duet/eval/judge/cache.py",  # a judge's replies
    "duet/eval/judge/protocol.py",
    "duet/serve/schema.py",  # requests
}


def calls(path: Path) -> set[str]:
    """Names of functions that a file calls, as it writes them."""
    found = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return {ast.unparse(node.func) for node in found if isinstance(node, ast.Call)}


@pytest.mark.parametrize("name", GUARDED)
def test_no_file_is_read_another_way(name: str) -> None:
    users = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if name in calls(path)
    }
    assert users - OTHERS <= GUARDED[name], f"{name} is for the guarded readers: see duet/files.py"


def test_automatic_classes_run_no_code_of_a_checkpoint() -> None:
    """`trust_remote_code=False`: transformers would ask on the terminal, and wait."""
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("Auto"):
                    arguments = {word.arg for word in node.keywords}
                    assert "trust_remote_code" in arguments, f"{path}:{node.lineno}"
