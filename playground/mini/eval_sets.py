"""Writes the held-out questions in the official file formats of six benchmarks, so their readers work unchanged.

One writer per benchmark: (root of that benchmark, number of questions, seed, how to draw a scene). Layouts and field
names follow LLaVA's evaluation data (`eval.zip`) and the benchmarks' own annotations; pictures are PNG throughout.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from duet.llava.prompts import OPTION_LETTER, with_choices, with_picture, with_suffix

from . import held_out
from .choices import SEED_TYPES
from .conversations import OCR_LINE
from .world import Scene

Picture = Callable[[Scene], np.ndarray]  # draws a scene: `draw`, or `noise` to see what can be answered without it
SPLIT = "eval"
NESTED = ("scene",)  # MME categories with images/ and questions_answers_YN/, as five of the official ones have
MME_SUFFIX = "Please answer yes or no."


def write_pope(root: Path, count: int, seed: int, picture: Picture) -> None:
    """`llava_pope_test.jsonl`, one label file per category (ids from 1), pictures in val2014/."""
    rows, labels = [], {"adversarial": [], "popular": [], "random": []}
    first_id = {"adversarial": 0, "random": 10000000, "popular": 20000000}
    for number, (category, scene, true, false) in enumerate(held_out.pope(count, seed, SPLIT)):
        image = f"COCO_val2014_{number + 1:012d}.png"
        save_picture(picture(scene), root / "val2014" / image)
        for text, label in ((true, "yes"), (false, "no")):
            place = len(labels[category]) + 1
            labels[category].append({"question_id": place, "image": image, "text": text, "label": label})
            rows.append(_question(first_id[category] + place, image, with_suffix(text), category))
    write_lines(root / "llava_pope_test.jsonl", rows)
    for category, lines in labels.items():
        write_lines(root / "coco" / f"coco_pope_{category}.json", lines)


def write_gqa(root: Path, count: int, seed: int, picture: Picture) -> None:
    """`llava_gqa_testdev_balanced.jsonl` and `data/testdev_balanced_questions.json`, a dict by question id."""
    _write_gqa(root, held_out.gqa(count, seed, SPLIT), picture)


def write_hops(root: Path, count: int, seed: int, picture: Picture) -> None:
    """The questions of the hops world in GQA's files; `types.detailed` is the kind of question."""
    _write_gqa(root, held_out.hops_world(count, seed, SPLIT), picture)


def _write_gqa(root: Path, questions: Iterable[held_out.Asked], picture: Picture) -> None:
    rows, annotations = [], {}
    for asked in questions:
        name, question = f"{asked.number:08d}", asked.question
        save_picture(picture(asked.scene), root / "data" / "images" / f"n{name}.png")
        rows.append(_question(name, f"n{name}.png", with_suffix(question.text), "default"))
        structural = "verify" if question.answer in ("Yes", "No") else "choose" if question.kind == "size" else "query"
        semantic = {"count": "global", "position": "rel"}.get(question.kind, "attr")
        annotations[name] = {
            "question": question.text,
            "answer": question.answer.lower(),
            "imageId": f"n{name}",
            "isBalanced": True,
            "types": {"structural": structural, "semantic": semantic, "detailed": question.kind},
            "groups": {"global": None, "local": question.kind},
            "semantic": [{"operation": "select", "dependencies": [], "argument": question.kind}],
            "entailed": [],
            "equivalent": [name],
        }
    write_lines(root / "llava_gqa_testdev_balanced.jsonl", rows)
    write_json(root / "data" / "testdev_balanced_questions.json", annotations)


def write_textvqa(root: Path, count: int, seed: int, picture: Picture) -> None:
    """`llava_textvqa_val_v051_ocr.jsonl` with an empty OCR line, and the annotations with ten answers each."""
    rows, annotations = [], []
    for asked in held_out.textvqa(count, seed, SPLIT):
        image_id, question = f"{asked.number:016x}", asked.question
        save_picture(picture(asked.scene), root / "train_images" / f"{image_id}.png")
        text = with_suffix(f"{question.text}\n{OCR_LINE}")
        rows.append(_question(image_id, f"{image_id}.png", text, "default"))
        annotations.append(
            {
                "question": question.text.lower(),
                "image_id": image_id,
                "answers": [question.answer] * 10,
                "question_id": 34602 + asked.number,
                "set_name": "val",
            }
        )
    write_lines(root / "llava_textvqa_val_v051_ocr.jsonl", rows)
    head = {"dataset_type": "val", "dataset_name": "textvqa", "dataset_version": "0.5.1"}
    write_json(root / "TextVQA_0.5.1_val.json", {**head, "data": annotations})


def write_mme(root: Path, count: int, seed: int, picture: Picture) -> None:
    """`llava_mme.jsonl` and per category the pictures with their two-line answer files, in both official layouts."""
    rows = []
    release = root / "MME_Benchmark_release_version"
    for number, (category, scene, true, false) in enumerate(held_out.mme(count, seed, SPLIT)):
        nested, name = category in NESTED, f"{number + 1:012d}"
        image = f"{category}/images/{name}.png" if nested else f"{category}/{name}.png"
        save_picture(picture(scene), release / image)
        answers = release / category / ("questions_answers_YN" if nested else "") / f"{name}.txt"
        answers.parent.mkdir(parents=True, exist_ok=True)
        answers.write_text(f"{true} {MME_SUFFIX}\tYes\n{false} {MME_SUFFIX}\tNo\n", encoding="utf-8")
        rows += [_question(image, image, with_suffix(text), category) for text in (true, false)]
    write_lines(root / "llava_mme.jsonl", rows)


def write_scienceqa(root: Path, count: int, seed: int, picture: Picture) -> None:
    """`llava_test_CQM-A.json`, `problems.json` and `pid_splits.json`; three of four questions have a picture."""
    rows, problems = [], {}
    for shown, asked in held_out.scienceqa(count, seed, SPLIT):
        name, choice = str(asked.number + 1), asked.question
        text = with_choices(choice.text, choice.choices, choice.hint)
        record = {"id": name, **({"image": f"{name}/image.png"} if shown else {})}
        spoken = [("human", with_picture(text) if shown else text), ("gpt", choice.letter)]
        rows.append({**record, "conversations": [{"from": who, "value": value} for who, value in spoken]})
        problems[name] = {
            "question": choice.text,
            "choices": list(choice.choices),
            "answer": choice.answer,
            "hint": choice.hint,
            "image": "image.png" if shown else None,
            "task": "closed choice",
            "grade": "grade2",
            "subject": "natural science",
            "topic": choice.kind,
            "category": choice.kind,
            "skill": choice.text,
            "lecture": "",
            "solution": "",
            "split": "test",
        }
        if shown:
            save_picture(picture(asked.scene), root / "images" / "test" / name / "image.png")
    write_json(root / "llava_test_CQM-A.json", rows)
    write_json(root / "problems.json", problems)
    write_json(root / "pid_splits.json", {"train": [], "val": [], "test": list(problems)})


def write_seed_bench(root: Path, count: int, seed: int, picture: Picture) -> None:
    """`llava-seed-bench.jsonl` and `SEED-Bench.json`; the pictures in SEED-Bench-image/ have no suffix."""
    rows, annotations = [], []
    for asked in held_out.seed_bench(count, seed, SPLIT):
        choice, data_id = asked.question, f"mini_{asked.number:06d}"
        save_picture(picture(asked.scene), root / "SEED-Bench-image" / data_id)
        text = with_suffix(with_choices(choice.text, choice.choices), OPTION_LETTER)
        rows.append(_question(asked.number + 1, f"SEED-Bench-image/{data_id}", text, choice.kind))
        options = {f"choice_{letter}": option for letter, option in zip("abcd", choice.choices, strict=True)}
        annotations.append(
            {
                "answer": choice.letter,
                **options,
                "data_id": data_id,
                "data_type": "image",
                "question": choice.text,
                "question_id": str(asked.number + 1),
                "question_type_id": SEED_TYPES[choice.kind],
            }
        )
    write_lines(root / "llava-seed-bench.jsonl", rows)
    write_json(root / "SEED-Bench.json", {"questions": annotations, "question_type": SEED_TYPES})


WRITERS: dict[str, Callable[[Path, int, int, Picture], None]] = {
    "pope": write_pope,
    "gqa": write_gqa,
    "textvqa": write_textvqa,
    "MME": write_mme,
    "scienceqa": write_scienceqa,
    "seed_bench": write_seed_bench,
}


def save_picture(picture: np.ndarray, path: Path) -> None:
    """Write uint8 [H, W, 3] as PNG, whatever the path's suffix (SEED-Bench's files have none)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        Image.fromarray(picture).save(file, format="PNG", compress_level=1)


def write_json(path: Path, rows: object) -> None:
    """Write compact JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows, separators=(",", ":")), encoding="utf-8")


def write_lines(path: Path, rows: Iterable[dict[str, object]]) -> None:
    """Write JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in rows), encoding="utf-8")


def _question(name: int | str, image: str, text: str, category: str) -> dict[str, object]:
    return {"question_id": name, "image": image, "text": text, "category": category}
