"""`duet viz IMAGE "question"`: a PNG of the patches that each reduction kept, the scores, the words that voted."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from duet.cli.options import Setup, add_question_arguments, prepare
from duet.cli.output import say
from duet.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

    from duet.inference import Answer
    from duet.report.heatmaps import View
    from duet.report.textblock import Paragraph

SUMMARY = "draw what each stage keeps of the pictures"
EXAMPLES = """examples:
  duet viz bus.jpg "What number does the bus have?" --model llava-hf/llava-1.5-7b-hf -o bus.png
  duet viz bus.jpg "What number does the bus have?" --method duet_c_s --budget llava15_64
  duet viz bus.jpg "What is this?" --method pyramiddrop --average 128 -o bus.pdf
"""
FORMATS = (".png", ".pdf", ".svg")


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    add_question_arguments(parser)
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="png, pdf or svg (default: IMAGE-METHOD.png here)"
    )


def run(args: Namespace) -> int:
    """Answer twice, draw, save; returns the exit code.

    Raises:
        UserError: a file, name or number that does not fit.
    """
    output = args.output or Path(f"{args.images[0].stem}-{args.method}.png")
    _check_output(output)
    setup = prepare(args)
    if not setup.boundaries:
        raise UserError(f"method {setup.method} keeps all tokens: there is nothing to draw; choose another --method")
    # behind the cheap checks: these load torch and matplotlib
    from duet.data.pictures import open_picture
    from duet.engine.attach import detach
    from duet.inference import ask
    from duet.report.heatmaps import draw

    pictures = [open_picture(path) for path in args.images]
    options = {"max_new_tokens": args.max_new_tokens}
    answer = ask(setup.model, setup.processor, pictures, args.question, traced=True, **options)
    views = _views(setup, answer, pictures)
    detach(setup.model)
    whole = ask(setup.model, setup.processor, pictures, args.question, **options)
    draw(*_titles(setup), views, _paragraphs(setup, answer, whole)).savefig(output)
    say(f"{answer.text}\nwith all tokens: {whole.text}\ndrawn in {output}")
    return 0


def _check_output(output: Path) -> None:
    if output.suffix.lower() not in FORMATS:
        raise UserError(f"{output}: can't draw {output.suffix or 'a file without ending'}; use {', '.join(FORMATS)}")
    if not output.parent.is_dir():
        raise UserError(f"{output}: no such folder {output.parent}")


def _views(setup: Setup, answer: Answer, pictures: list[Image]) -> list[View]:
    from duet.engine.attach import attached
    from duet.report.canvas import make_canvas, seen_box
    from duet.report.heatmaps import View
    from duet.report.kept import kept_patches

    assert answer.trace is not None
    patches, stage1 = setup.backbone.known_patches, setup.budget.stage1
    contextual = stage1.resolve(patches, setup.backbone.cls)[1] if stage1 else 0
    in_place = not attached(setup.model).compression.renumber
    kept = kept_patches(answer.trace, patches, contextual, in_place=in_place, cls_slot=setup.backbone.cls_enters)
    images = setup.processor.image_processor
    padded, edge = bool(getattr(images, "do_pad", False)), images.size["shortest_edge"]
    views = []
    for picture, steps in zip(pictures, kept, strict=True):
        box = seen_box(picture.size, padded, edge, images.crop_size["height"])
        views.append(View(make_canvas(picture, box, round(patches**0.5), images.image_mean), steps))
    return views


def _titles(setup: Setup) -> tuple[str, str]:
    counts, average = " → ".join(map(str, setup.counts)), setup.budget.average(setup.backbone)
    return (
        f"{setup.method} on {Path(setup.path).name}",
        f"{counts} visual tokens, {average:.1f} on average over the layers",
    )


def _paragraphs(setup: Setup, answer: Answer, whole: Answer) -> list[Paragraph]:
    from duet.report.textblock import Paragraph, plain

    paragraphs = [Paragraph(label, words) for label, words in _questions(setup, answer)]
    for label, text in ((f"answer of {setup.method}", answer.text), ("answer with all visual tokens", whole.text)):
        paragraphs.append(Paragraph(label, plain(text or "(nothing)"), bold=True))
    return paragraphs


def _questions(setup: Setup, answer: Answer) -> list[tuple[str, list[tuple[str, bool]]]]:
    """The question with the words that voted marked; once if the same ones voted at every drop."""
    import torch

    from duet.text.salient import marked_words

    def marked(voters: Any) -> list[tuple[str, bool]]:
        mask = torch.zeros(len(answer.input_ids), dtype=torch.bool)
        mask[voters] = True
        return _question(marked_words(setup.processor.tokenizer, answer.input_ids, mask))

    assert answer.trace is not None
    votes = {stage.boundary: marked(stage.voters[0]) for stage in answer.trace.stages}
    if not votes:
        return [("question", marked([]))]
    if all(words == next(iter(votes.values())) for words in votes.values()):
        return [("question, the words that voted marked", next(iter(votes.values())))]
    return [(f"question, the words that voted behind layer {layer} marked", words) for layer, words in votes.items()]


def _question(words: list[tuple[str, bool]]) -> list[tuple[str, bool]]:
    """Without the system sentence: from the first role name on."""
    start = next((index for index, (word, _) in enumerate(words) if word.strip() == "USER"), 0)
    return words[start:]
