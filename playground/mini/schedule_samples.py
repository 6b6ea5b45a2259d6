"""Samples of the small world for `duet schedule`: questions without answers, in strata, with pictures of their own.

    python -m playground.mini.schedule_samples --output playground/data/mini/schedule

Short answers, text in pictures, yes and no, and descriptions of everything in the picture, whose answers are long.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from duet.llava.prompts import SHORT_ANSWER, with_suffix

from . import questions
from .conversations import caption
from .draw import draw
from .eval_sets import save_picture
from .held_out import singles
from .questions import Question
from .world import Scene

SPLIT = "schedule"


def describe(scene: Scene, random: object) -> Question:
    """Asks for everything in the picture."""
    return Question("describe", "Describe the image.", caption(scene))


#: Stratum -> makers, and whether the prompt asks for a short answer.
STRATA: dict[str, tuple[tuple[Callable, ...], bool]] = {
    "short": (questions.GQA[:7], True),
    "text": (questions.TEXTVQA, True),
    "yes_no": ((*questions.POPE.values(), *questions.MME.values()), True),
    "describe": ((describe,), False),
}


def main(words: Sequence[str] | None = None) -> None:
    """Write the pictures and `samples.jsonl`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--count", type=int, default=16, metavar="N", help="samples of each stratum (default: 16)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(words)
    folder = args.output / "images"
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for stratum, (makers, short) in STRATA.items():
        for number, scene, question in singles(makers, args.count, args.seed, f"{SPLIT}/{stratum}"):
            image = f"images/{stratum}_{number:03}.png"
            save_picture(draw(scene), args.output / image)
            text = with_suffix(question.text, SHORT_ANSWER) if short else question.text
            lines.append(json.dumps({"image": image, "question": text, "stratum": stratum}))
    (args.output / "samples.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
