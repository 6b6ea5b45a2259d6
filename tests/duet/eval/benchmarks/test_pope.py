"""POPE: the parser's odd rules, labels found by content, every published variant, the original's shifted labels."""

import pytest

from duet.eval.benchmarks import get
from duet.eval.benchmarks.pope import object_of, parse
from duet.eval.types import InputError
from tests.eval_files import SHORT, answer, lines, score

FIRST_ID = {"adversarial": 0, "random": 10000000, "popular": 20000000}
THINGS = {"adversarial": ("dog", "cat"), "random": ("dog", "kite"), "popular": ("dog", "person")}


@pytest.fixture
def folder(tmp_path):
    """Two pictures, a dog on each: one yes and one no per picture and category."""
    own, rows = tmp_path / "pope", []
    for category, first in FIRST_ID.items():
        labels = []
        for number in range(1, 5):
            thing, label = THINGS[category][(number + 1) % 2], "yes" if number % 2 else "no"
            image, text = f"COCO_{(number + 1) // 2}.jpg", f"Is there a {thing} in the image?"
            labels.append({"question_id": number, "image": image, "text": text, "label": label})
            rows.append({"question_id": first + number, "image": image, "text": text + SHORT, "category": category})
        lines(own / "coco" / f"coco_pope_{category}.json", labels)
    lines(own / "llava_pope_test.jsonl", rows)
    return own


def answers(folder, texts="Yes No Yes No") -> list[dict]:
    texts = texts.split()
    return [
        answer(int(sample.id), texts[row % len(texts)], sample.question)
        for row, sample in enumerate(get("pope").load(folder))
    ]


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("No", "no"),
        ("no, it is", "no"),
        ("It is not there.", "no"),
        ("N,o", "no"),
        ("Sure. No", "yes"),
        ("", "yes"),
        ("NO", "yes"),
        ("Nope", "yes"),
        ("no!", "yes"),
        ("\nno", "yes"),
        ("\tno", "yes"),
        ("No.", "no"),
    ],
)
def test_parser(text, parsed):
    assert parse(text) == parsed


def test_object_of_either_spelling():
    assert (
        object_of("Is there an apple in the imange?") == object_of("is there a apple in the image?" + SHORT) == "apple"
    )
    assert object_of("Do you see an apple?") is None


def test_load(folder):
    samples = get("pope").load(folder.parent)
    assert samples == get("pope").load(folder)
    assert (samples[4].id, samples[4].answer, samples[4].group) == ("10000001", "yes", "random")
    assert samples[4].question == "Is there a dog in the image?" + SHORT
    assert samples[4].images == (str(folder / "val2014" / "COCO_1.jpg"),)
    assert len({sample.key for sample in samples}) == 12


def test_headline_is_the_mean_of_three_f1(folder):
    rows = answers(folder)
    rows[1]["text"] = rows[3]["text"] = rows[5]["text"] = "Yes"  # false positives: 2 adversarial, 1 random
    result = score("pope", folder, rows)
    values = result.summary.metrics
    assert values["adversarial_f1"] == pytest.approx(200 / 3)
    assert values["adversarial_precision"] == 50 and values["adversarial_recall"] == 100
    assert values["random_f1"] == pytest.approx(80) and values["popular_f1"] == 100
    assert result.summary.headline == "mean_f1"
    assert result.headline == pytest.approx((200 / 3 + 80 + 100) / 3)
    assert values["pooled_f1"] == pytest.approx(100 * 12 / 15)
    assert values["mean_accuracy"] == pytest.approx(75) and values["adversarial_yes_ratio"] == 100
    assert result.summary.tallies["adversarial"] == {"tp": 2, "fp": 2, "tn": 0, "fn": 0, "answers": 4, "yes": 4}


def test_order_of_lines_does_not_matter_but_does_to_the_original(folder):
    rows = answers(folder)
    shuffled = [rows[1], rows[0], *rows[2:]]
    assert score("pope", folder, shuffled).headline == 100
    assert score("pope", folder, rows, official=True).headline == 100
    assert score("pope", folder, shuffled, official=True).headline < 100


def test_a_cut_file_is_no_plausible_score(folder):
    rows = answers(folder)
    result = score("pope", folder, rows[:3] + rows[4:])
    assert not result.complete and result.headline < 100 and result.answered == 100
    assert result.other == 100  # the original says nothing
    assert "division by zero" in score("pope", folder, rows[:4]).other


def test_labels_of_another_release_are_refused(folder):
    labels = [
        {"question_id": n, "image": "COCO_1.jpg", "text": f"Is there a {thing} in the imange?", "label": "no"}
        for n, thing in enumerate(("dog", "bus"), 1)
    ]
    lines(folder / "coco" / "coco_pope_random.json", labels)
    with pytest.raises(InputError, match=r"coco: 3 of 12 questions have no label there .*10000002, random.*e3e39262"):
        score("pope", folder, [answer(1, "Yes")])
    with pytest.raises(InputError, match="have no label"):
        get("pope").load(folder)


def test_official_scores_labels_of_another_release_without_a_word(folder):
    rows = answers(folder)
    labels = (folder / "coco" / "coco_pope_random.json").read_text().splitlines()
    other = [*labels[:2], labels[3], labels[2]]
    (folder / "coco" / "coco_pope_random.json").write_text("\n".join(other).replace("kite", "frog"))
    result = score("pope", folder, rows, official=True)
    assert result.summary.metrics["random_f1"] == 50 and result.complete
    assert "have no label there" in result.other


def test_prompt_and_id_must_agree(folder):
    rows = answers(folder)
    rows[0]["prompt"] = rows[0]["prompt"].replace("dog", "cow")
    counts = score("pope", folder, rows).counts
    assert (counts.missing, counts.unknown) == (1, 1)


def test_lmms_eval_counts_every_category_from_one(folder):
    rows = []
    for place, (row, sample) in enumerate(zip(answers(folder), get("pope").load(folder), strict=True)):
        number = int(sample.id) % 10000000
        rows.append(
            {
                "doc_id": place,
                "input": row["prompt"],
                "filtered_resps": [row["text"]],
                "pope_accuracy": {"question_id": number, "score": 1.0},
            }
        )
    result = score("pope", folder, rows)
    assert (result.headline, result.complete, result.counts.unknown) == (100, True, 0)
    told = [
        row | {"doc": {"question_id": row["pope_accuracy"]["question_id"], "category": sample.group}}
        for row, sample in zip(rows, get("pope").load(folder), strict=True)
    ]
    assert score("pope", folder, told[::-1]).headline == 100


def test_no_yes_at_all_and_a_missing_category_are_noted(folder):
    result = score("pope", folder, answers(folder, "No"))
    assert result.headline == 0 and result.summary.notes[0].startswith("adversarial: no answer is yes")
    rows = [row for row in answers(folder) if row["question_id"] < 10000000]
    questions = (folder / "llava_pope_test.jsonl").read_text().splitlines()[:4]
    (folder / "llava_pope_test.jsonl").write_text("\n".join(questions))
    result = score("pope", folder, rows)
    assert result.complete and "not over POPE's three categories" in result.summary.notes[0]
