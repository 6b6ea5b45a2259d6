"""Training rows in LLaVA's JSON: dense captions for the first stage, eight question-answer turns for the second.

`{"id", "image", "conversations": [{"from": "human" | "gpt", "value"}, ...]}`; the placeholder and the suffix that asks
for a short answer or a letter are in the first turn only, as in LLaVA-1.5's mixture. Rows about facts are text-only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from duet.llava.prompts import OPTION_LETTER, SHORT_ANSWER, with_choices, with_picture, with_suffix

from . import choices, hops, questions
from .choices import Choice
from .questions import Question
from .world import PLACES, Scene

TURNS = 8
Row = dict[str, object]
# how often each kind of row is drawn: short answers, letters about a picture, letters without a picture
KINDS = {"short": 0.56, "letter": 0.40, "fact": 0.04}
OCR_LINE = "Reference OCR token: "  # TextVQA's line, left empty: the words have to be read in the picture


def caption(scene: Scene) -> str:
    """Everything in the picture in raster order, then the scene: "top left small red ring, center word sun, night"."""
    return ", ".join([f"{PLACES[item.place]} {item.phrase}" for item in scene.items] + [scene.background])


def caption_row(name: str, image: str, scene: Scene) -> Row:
    """A row of the first stage: the picture, then its dense caption."""
    return row(name, image, [("Describe the image.", caption(scene))])


def question_row(name: str, image: str, scene: Scene, random: np.random.Generator) -> Row:
    """A row of the second stage: eight turns of one kind. Text-only rows have no picture."""
    kind = str(random.choice(list(KINDS), p=list(KINDS.values())))
    if kind == "short":
        return row(name, image, short_turns(scene, random))
    if kind == "fact":
        asked = [
            choices.SCIENCE_TEXT[int(random.integers(len(choices.SCIENCE_TEXT)))](scene, random) for _ in range(TURNS)
        ]
    else:
        asked = draw_turns(scene, random, (*choices.SEED, *choices.SCIENCE_PICTURE))
    turns = [(with_choices(c.text, c.choices, c.hint), c.letter) for c in asked]
    turns[0] = (with_suffix(turns[0][0], OPTION_LETTER), turns[0][1])
    return row(name, None if kind == "fact" else image, turns)


def short_turns(scene: Scene, random: np.random.Generator) -> list[tuple[str, str]]:
    """Eight turns with short answers in the styles of POPE, GQA, TextVQA and MME, in equal shares."""
    groups = (
        tuple(questions.POPE.values()),
        questions.GQA,
        questions.GQA,
        questions.TEXTVQA,
        tuple(questions.MME.values()),
    )
    asked = list(draw_turns(scene, random, groups))
    turns = [(question.text, question.answer) for question in asked]
    text = turns[0][0]
    if asked[0].kind in ("word", "number", "written at"):
        text = f"{text}\n{OCR_LINE}"
    turns[0] = (with_suffix(text, SHORT_ANSWER), turns[0][1])
    return turns


def hops_row(name: str, image: str, scene: Scene, random: np.random.Generator, makers: tuple) -> Row:
    """A row of the hops world: eight different questions."""
    asked = hops.turns(scene, random, makers, TURNS)
    spoken = [(question.text, question.answer) for question in asked]
    return row(name, image, [(with_suffix(spoken[0][0], SHORT_ANSWER), spoken[0][1]), *spoken[1:]])


def draw_turns(scene: Scene, random: np.random.Generator, makers: Sequence) -> Iterator[Question | Choice]:
    """`TURNS` different questions. A maker may be a group of makers; entries, then members, are equally likely."""
    seen: set[str] = set()
    while len(seen) < TURNS:
        maker = makers[int(random.integers(len(makers)))]
        if isinstance(maker, tuple):
            maker = maker[int(random.integers(len(maker)))]
        question = maker(scene, random)
        if question is not None and question.text not in seen:
            seen.add(question.text)
            yield question


def row(name: str, image: str | None, turns: Sequence[tuple[str, str]]) -> Row:
    """One record of a LLaVA data file; with an image, the placeholder goes in front of the first question."""
    values = [value for turn in turns for value in turn]
    if image is not None:
        values[0] = with_picture(values[0])
    spoken = [{"from": ("human", "gpt")[place % 2], "value": value} for place, value in enumerate(values)]
    return {"id": name, **({"image": image} if image is not None else {}), "conversations": spoken}
