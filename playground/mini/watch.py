"""A small held-out conversation file to watch during training: one question per row, labelled with its benchmark.

The trainer's accuracy callback (`duet.train.callbacks`) answers the rows of `watch.json` greedily and reports the share
of exact answers by `task`. Pictures come from the split "watch", which neither training nor the evaluation sets use.
"""

from __future__ import annotations

from collections.abc import Iterator

from duet.llava.prompts import OPTION_LETTER, SHORT_ANSWER, with_choices, with_suffix

from . import held_out
from .conversations import OCR_LINE, Row, row
from .world import Scene


def watch_rows(seed: int, count: int) -> Iterator[tuple[Scene | None, Row]]:
    """Scenes (None for a text-only question) and their rows, about `count` per benchmark."""
    for number, (task, scene, text, answer, shown) in enumerate(_questions(seed, count)):
        name = f"watch_{number:04d}"
        record = row(name, f"watch/{name}.png" if shown else None, [(text, answer)])
        yield (scene if shown else None), {**record, "task": task}


def watch_hops(seed: int, count: int) -> Iterator[tuple[Scene, Row]]:
    """Scenes of the hops world and their rows, `count` in all, with the kind of question as `task`."""
    for asked in held_out.hops_world(count, seed, "watch"):
        name, text = f"watch_{asked.number:04d}", with_suffix(asked.question.text, SHORT_ANSWER)
        record = row(name, f"watch/{name}.png", [(text, asked.question.answer)])
        yield asked.scene, {**record, "task": asked.question.kind.replace(" ", "_")}


def _questions(seed: int, count: int) -> Iterator[tuple[str, Scene, str, str, bool]]:
    for task, source in (("pope", held_out.pope), ("mme", held_out.mme)):
        for _, scene, true, false in source(count, seed, "watch"):
            yield task, scene, with_suffix(true, SHORT_ANSWER), "Yes", True
            yield task, scene, with_suffix(false, SHORT_ANSWER), "No", True
    for asked in held_out.gqa(count, seed, "watch"):
        yield "gqa", asked.scene, with_suffix(asked.question.text, SHORT_ANSWER), asked.question.answer, True
    for asked in held_out.textvqa(count, seed, "watch"):
        text = with_suffix(f"{asked.question.text}\n{OCR_LINE}", SHORT_ANSWER)
        yield "textvqa", asked.scene, text, asked.question.answer, True
    for asked in held_out.seed_bench(count, seed, "watch"):
        yield "seed_bench", asked.scene, letters(asked.question), asked.question.letter, True
    for shown, asked in held_out.scienceqa(count, seed, "watch"):
        yield ("scienceqa" if shown else "facts"), asked.scene, letters(asked.question), asked.question.letter, shown


def letters(choice: held_out.Choice) -> str:
    """The full text of a question with lettered options."""
    return with_suffix(with_choices(choice.text, choice.choices, choice.hint), OPTION_LETTER)
