"""Which budget the options mean, and which of their combinations are refused before a model is loaded."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from pathlib import Path

import pytest

from duet.budget import BACKBONES, Budget
from duet.cli import compression, question, values
from duet.errors import UserError
from duet.method_table import find_method
from tests.named import named

LLAVA, MINI = BACKBONES["llava15"], BACKBONES["mini"]


def parse(*words: str) -> Namespace:
    parser = ArgumentParser()
    question.add_question_arguments(parser)
    return parser.parse_args(["picture.png", "why?", *words])


def test_the_default_is_the_papers_on_the_papers_model() -> None:
    assert compression.find_budget(parse(), find_method("duet"), LLAVA) == named("llava15_128")
    assert compression.find_budget(parse(), find_method("visionzip"), LLAVA) == named("llava15_128", (1,))


@pytest.mark.parametrize("method", ["duet", "visionzip", "pyramiddrop"])
def test_the_default_is_two_ninths_elsewhere(method: str) -> None:
    budget = compression.find_budget(parse(), find_method(method), MINI)
    assert budget.average(MINI) == pytest.approx(200 / 9, abs=0.5)


def test_the_default_counts_all_pictures() -> None:
    two = MINI.with_patches(100, 2)
    assert compression.find_budget(parse(), find_method("duet"), two).average(two) == pytest.approx(400 / 9, abs=1)


def test_numbers_average_and_name() -> None:
    numbers = parse("--dominant", "170", "--contextual", "0.1", "--layers", "16,24", "--ratios", "0.5,0")
    expected = Budget(170, 0.1, layers=(16, 24), ratios=(0.5, 0))
    assert compression.find_budget(numbers, find_method("duet"), LLAVA) == expected
    assert compression.find_budget(parse("--average", "64"), find_method("visionzip"), LLAVA).average(LLAVA) == 64
    assert compression.find_budget(parse("--budget", "llava15_64"), find_method("duet"), LLAVA) == named("llava15_64")
    assert compression.find_budget(parse(), find_method("none"), LLAVA) == Budget()


@pytest.mark.parametrize("words", [[], ["--average", "30"], ["--dominant", "9", "--layers", "2", "--ratios", "0.5"]])
def test_the_ratio_base_is_known_while_solving(words: list[str]) -> None:
    budget = compression.find_budget(parse(*words, "--ratio-base", "compounding"), find_method("duet"), MINI)
    assert budget.ratio_base == "compounding"
    if "--dominant" not in words:
        assert budget.average(MINI) == pytest.approx(30 if words else 200 / 9, abs=0.5)


def test_an_average_over_pictures_of_different_sizes() -> None:
    """A small picture keeps all it has, the others make up for it."""
    three = MINI.with_units([10, 100, 60])
    budget = compression.find_budget(parse("--average", "40"), find_method("duet"), three)
    assert budget.average(three) == pytest.approx(40, abs=1.5)
    stage1 = budget.stage1
    assert stage1 is not None and stage1.dominant > 10
    assert budget.entered(three) == 10 + 2 * (stage1.dominant + stage1.contextual)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--method", "duett"], "unknown method 'duett'"),
        (["--budget", "llava15_12"], "unknown budget"),
        (["--budget", "llava15_64", "--average", "3"], "--budget and --average contradict"),
        (["--average", "3", "--dominant", "3"], "--average and --dominant contradict"),
        (["--method", "none", "--average", "3"], "keeps all tokens"),
        (["--dominant", "0"], "dominant is 0"),
        (["--contextual", "3"], "needs `dominant`"),
        (["--layers", "3", "--ratios", "0.5,0"], "1 layers"),
        (["--ratio-base", "current"], "ratio_base is 'current'"),
    ],
)
def test_mistakes_come_before_the_model(picture: Path, words: list[str], message: str) -> None:
    args = parse(*words)
    args.media = [picture]
    args.model = "no model is looked for"
    with pytest.raises(UserError, match=message):
        question.prepare(args)


def test_a_number_is_no_name_of_a_budget(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse("--budget", "64")
    assert "--budget: 64 is no name; an average of tokens is --average 64" in capsys.readouterr().err


def test_pictures_and_question_are_checked(picture: Path) -> None:
    args = parse()
    with pytest.raises(UserError, match="no such file: picture"):
        question.prepare(args)
    args.question = str(picture)
    with pytest.raises(UserError, match="is a file: put the question after it"):
        question.prepare(args)
    args.media = [picture]
    args.question = " "
    with pytest.raises(UserError, match="empty"):
        question.prepare(args)
    args.question, args.frames = "why?", 4
    with pytest.raises(UserError, match="no video among the files"):
        question.prepare(args)


@pytest.mark.parametrize(("device", "message"), [("gpu", "is not a device"), ("xla", "--device xla")])
def test_devices(picture: Path, checkpoint: str, device: str, message: str) -> None:
    args = parse("--model", checkpoint, "--device", device)
    args.media, args.debug = [picture], False
    with pytest.raises(UserError, match=message):
        question.prepare(args)


def test_every_number_of_a_budget_reaches_it() -> None:
    words = ["--dominant", "40", "--contextual", "8", "--cluster-width", "3", "--layers", "4", "--entry", "1"]
    more = ["--frozen", "6,7", "--away", "2,3"]
    args = parse(*words, *more, "--ratios", "0.5", "--ratio-base", "compounding")
    wanted = Budget(40, 8, 3, (4,), (0.5,), "compounding", entry=1, frozen=(6, 7), away=(2, 3))
    assert compression.find_budget(args, find_method("duet"), MINI) == wanted
    args = parse(*words, *more, "--keep", "9")
    assert compression.find_budget(args, find_method("duet"), MINI).keep == (9,)
    assert compression.find_budget(parse("--away", "2,3"), find_method("none"), MINI) == Budget(away=(2, 3))


@pytest.mark.parametrize("text", ["-0.1", "1", "nan", "inf", "1e999", "x", "{}"])
def test_share(text: str) -> None:
    assert values.share("0.25") == 0.25 and values.share("0") == 0
    with pytest.raises(ArgumentTypeError):
        values.share(text)


@pytest.mark.parametrize("text", ["0.5", "-1", "nan", "inf", "x"])
def test_at_least(text: str) -> None:
    assert values.at_least(1)("2.5") == 2.5
    with pytest.raises(ArgumentTypeError):
        values.at_least(1)(text)


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "x"])
def test_positive(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match=text):
        values.positive(text)


def test_commas_in_brackets_do_not_part_methods():
    from duet.cli.values import method_names

    assert method_names("scope[alpha=2,score=x], duet,cover[words=1]") == [
        "scope[alpha=2,score=x]",
        "duet",
        "cover[words=1]",
    ]
