"""Pictures of earlier requests are kept: the same answers, fewer pictures read, and numbers that say so."""

from __future__ import annotations

import math
from typing import Any

import pytest

import duet
from duet.serve.jobs import Done, Job, Piece
from duet.serve.metrics import Metrics
from duet.serve.model import Served, Setting
from duet.serve.schema import Sampling
from duet.text.placeholders import IMAGE
from tests.duet.serve.server import CHECKPOINT, asked
from tests.named import named

BUDGETS = ("mini_third", "mini_ninth")


@pytest.fixture(scope="module")
def both() -> dict[bool, Served]:
    """With and without keeping pictures."""
    settings = {name: Setting("duet", lambda _, name=name: named(name)) for name in BUDGETS}
    return {keep: Served(*duet.load(CHECKPOINT, device="cpu"), settings, keep=keep << 30) for keep in (True, False)}


def answers(served: Served, asked_for: list[tuple[int, str, str]]) -> list[tuple[str, Any]]:
    """Text and counts of a batch: number of a picture, question, budget."""
    jobs, events = [], []
    for number, question, budget in asked_for:
        said: list[Any] = []
        encoded = served.encode(served.asking.prompt(question, [IMAGE]), [asked(number)[0]], budget, 6)
        jobs.append(Job(encoded, Sampling(max_tokens=6), budget, said.append, math.inf))
        events.append(said)
    served.answer(jobs)
    texts = ["".join(one.text for one in said if isinstance(one, Piece)) for said in events]
    usages = [next(one.usage for one in said if isinstance(one, Done)) for said in events]
    return list(zip(texts, usages, strict=True))


def test_answers_and_counts_are_those_without_and_pictures_are_read_once(both: dict[bool, Served]) -> None:
    gallery = both[True].gallery
    assert gallery is not None and both[False].gallery is None
    gallery.clear()
    metrics = Metrics(lambda: 0, gallery)
    gallery.hits = gallery.misses = 0
    short, other = "What color is it?", "Is there a red ring in the image?"
    seen = []
    for batch in (
        [(0, short, "mini_third")],
        [(0, other, "mini_third"), (1, short, "mini_third")],
        [(0, short, "mini_ninth")],
        [(1, other, "mini_third"), (0, other, "mini_third")],
    ):
        assert answers(both[True], batch) == answers(both[False], batch)
        metrics.looked()
        seen.append((gallery.misses, gallery.hits))
    assert seen == [(1, 0), (2, 1), (3, 1), (3, 3)]
    text = metrics.text().decode()
    assert 'duet_pictures_total{found="read"} 3.0' in text and 'duet_pictures_total{found="kept"} 3.0' in text
    assert f"duet_picture_bytes {float(gallery.nbytes)}" in text


def test_a_small_limit_forgets_the_oldest(both: dict[bool, Served]) -> None:
    gallery = both[True].gallery
    assert gallery is not None
    gallery.clear()
    answers(both[True], [(0, "What?", "mini_third")])
    gallery.prefix_bytes = gallery.nbytes * 3 // 2
    for number in (1, 2, 3):
        answers(both[True], [(number, "What?", "mini_third")])
        assert gallery.nbytes <= gallery.prefix_bytes
    gallery.prefix_bytes = 1 << 30
