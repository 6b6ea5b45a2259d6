"""The nine benchmarks by name; a benchmark's module is imported on demand."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

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
ALIASES = {"sqa": "scienceqa", "seed_bench": "seed"}


def get(name: str) -> Benchmark:
    """The benchmark of that name, upper or lower case.

    Raises:
        InputError: there is none; the message lists all.
    """
    word = name.lower()
    word = ALIASES.get(word, word)
    if word not in BENCHMARKS:
        raise InputError(f"no benchmark {name!r}; there are: {', '.join(BENCHMARKS)}")
    module, attribute = BENCHMARKS[word].split(":")
    return getattr(import_module(module), attribute)()
