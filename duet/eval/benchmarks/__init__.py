"""The nine benchmarks by name, and question files of your own; a benchmark's module is imported on demand."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from duet.eval.types import InputError

if TYPE_CHECKING:
    from duet.eval.types import Benchmark

BENCHMARKS = {
    "pope": "duet.eval.benchmarks.pope:Pope",
    "gqa": "duet.eval.benchmarks.gqa:Gqa",
    "textvqa": "duet.eval.benchmarks.textvqa:TextVqa",
    "mme": "duet.eval.benchmarks.mme:Mme",
    "scienceqa": "duet.eval.benchmarks.scienceqa:ScienceQa",
    "seed": "duet.eval.benchmarks.seed:SeedBench",
    "tgif": "duet.eval.benchmarks.tgif:Tgif",
    "msvd": "duet.eval.benchmarks.msvd:Msvd",
    "msrvtt": "duet.eval.benchmarks.msrvtt:Msrvtt",
}
#: Of question files.
SUFFIXES = (".jsonl", ".json")
ALIASES = {"sqa": "scienceqa", "seed_bench": "seed"}
#: Question files that were named, by the names of their results.
_OWN: dict[str, Path] = {}


def get(name: str) -> Benchmark:
    """The benchmark of that name, upper or lower case, or a question file by its path (`mine.jsonl`).

    After a file was named by its path once, its name without the suffix, which results have, stands for it.

    Raises:
        InputError: there is none; the message lists all.
    """
    if name.endswith(SUFFIXES):
        return _own(Path(name))
    word = name.lower()
    if name in _OWN:
        return _own(_OWN[name])
    word = ALIASES.get(word, word)
    if word not in BENCHMARKS:
        raise InputError(f"no benchmark {name!r}; there are: {', '.join(BENCHMARKS)}, or a question file (.jsonl)")
    module, attribute = BENCHMARKS[word].split(":")
    return getattr(import_module(module), attribute)()


def _own(path: Path) -> Any:
    from duet.eval.benchmarks.own import OwnQuestions

    if path.stem.lower() in BENCHMARKS or path.stem.lower() in ALIASES:
        raise InputError(f"{path}: {path.stem} is the name of a benchmark; rename the file")
    if _OWN.setdefault(path.stem, path) != path:
        raise InputError(f"{path} and {_OWN[path.stem]} would share the results of {path.stem}; rename one")
    return OwnQuestions(path)
