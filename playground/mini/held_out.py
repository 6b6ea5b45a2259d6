"""The held-out questions, benchmark by benchmark, before they are written in a file format.

Every question has its own picture (yes/no questions come as true and false pairs on one picture), drawn from the random
stream of (seed, split, index), so it contains no training picture and true and false are balanced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from . import choices, hops, questions
from .choices import Choice
from .hops_world import sample_full_scene
from .questions import Question
from .world import Scene, rng, sample_scene


class Asked(NamedTuple):
    """A question with its picture; `number` counts within the benchmark."""

    number: int
    scene: Scene
    question: Question | Choice


def ask(
    maker: Callable, seed: int, split: str, number: int, sample: Callable = sample_scene
) -> tuple[Scene, Question | Choice]:
    """The first scene of this stream that allows the maker's question, with the question."""
    random = rng(seed, split, number)
    while True:
        scene = sample(random)
        question = maker(scene, random)
        if question is not None:
            return scene, question


def pairs(makers: dict[str, Callable], count: int, seed: int, split: str) -> Iterator[tuple[str, Scene, str, str]]:
    """About `count` yes/no questions, the makers in equal shares: (maker's name, scene, true text, false text)."""
    for position, (name, maker) in enumerate(makers.items()):
        for number in range(max(1, count // (2 * len(makers)))):
            scene, question = ask(maker, seed, f"{split}/{position}", number)
            texts = (question.text, question.opposite)
            true, false = texts if question.answer == "Yes" else texts[::-1]
            yield name, scene, true, false


def singles(
    makers: tuple[Callable, ...], count: int, seed: int, split: str, sample: Callable = sample_scene
) -> Iterator[Asked]:
    """`count` questions, the makers in turn."""
    for number in range(count):
        yield Asked(number, *ask(makers[number % len(makers)], seed, split, number, sample))


def pope(count: int, seed: int, split: str) -> Iterator[tuple[str, Scene, str, str]]:
    """Pairs in POPE's three categories: (category, scene, true text, false text)."""
    return pairs(questions.POPE, count, seed, f"{split}/pope")


def mme(count: int, seed: int, split: str) -> Iterator[tuple[str, Scene, str, str]]:
    """Pairs in seven of MME's categories: (category, scene, true text, false text)."""
    return pairs(questions.MME, count, seed, f"{split}/mme")


def gqa(count: int, seed: int, split: str) -> Iterator[Asked]:
    """Open and yes/no questions."""
    return singles(questions.GQA, count, seed, f"{split}/gqa")


def textvqa(count: int, seed: int, split: str) -> Iterator[Asked]:
    """What is written."""
    return singles(questions.TEXTVQA, count, seed, f"{split}/textvqa")


def seed_bench(count: int, seed: int, split: str) -> Iterator[Asked]:
    """Lettered options, by SEED type."""
    return singles(choices.SEED, count, seed, f"{split}/seed")


def hops_world(count: int, seed: int, split: str) -> Iterator[Asked]:
    """The questions of the second world."""
    return singles(hops.FULL, count, seed, f"{split}/hops", sample_full_scene)


def scienceqa(count: int, seed: int, split: str) -> Iterator[tuple[bool, Asked]]:
    """Three questions about a picture, then one without: (has a picture, question)."""
    for number in range(count):
        shown = number % 4 != 3
        makers = choices.SCIENCE_PICTURE if shown else choices.SCIENCE_TEXT
        maker = makers[number // 4 % len(makers)] if not shown else makers[(number - number // 4) % len(makers)]
        yield shown, Asked(number, *ask(maker, seed, f"{split}/scienceqa", number))
