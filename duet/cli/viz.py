"""`duet viz FILE "question"`: a picture of the patches that each reduction kept, the scores and the voting words;
or of the attention of words (`viz_attention.py`), or of many methods (`viz_methods.py`).
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from duet.cli.compression import choose_method
from duet.cli.output import say
from duet.cli.question import Setup, add_question_arguments, prepare
from duet.cli.viz_attention import draw_maps, wants_attention
from duet.cli.viz_methods import draw_sheet
from duet.errors import UserError
from duet.extras import need
from duet.files import check_output_file
from duet.shipped import default_model

if TYPE_CHECKING:
    from collections.abc import Callable

    from duet.inference import Answer
    from duet.report.textblock import Paragraph
    from duet.report.views import View

SUMMARY = "draw what each stage keeps of pictures and videos"
EXAMPLES = """examples:
  duet viz bus.jpg "What number does the bus have?" --model llava-hf/llava-1.5-7b-hf -o bus.png
  duet viz bus.jpg "What is this?" --model checkpoints/llava-v1.5-7b --method pyramiddrop --average 128 -o bus.pdf
  duet viz playground/data/mini/eval/gqa/data/images/n00000003.png "What color is the ring?" --method duet_c_s
  duet viz clip.mp4 "What is the man doing?" --model LanguageBind/Video-LLaVA-7B-hf --frames 16
  duet viz bus.jpg "What number does the bus have?" --layers 9,24 --words number,bus --model llava-hf/llava-1.5-7b-hf
  duet viz bus.jpg "What number does the bus have?" --methods all --average 64 --model llava-hf/llava-1.5-7b-hf

One row per picture, set of tiles (LLaVA-NeXT) and video, in the geometry of the original.
--layers without --ratios, or --words: where the question's words look in these layers, before anything is dropped.
docs/viz.md shows what comes out.
"""
FORMATS = (".png", ".pdf", ".svg")


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    add_question_arguments(parser)
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="png, pdf or svg (default: FILE-METHOD.png here)"
    )
    parser.add_argument(
        "--methods",
        metavar="NAME,NAME",
        help="one sheet of what these methods keep; all: of every method, those that cannot run here named below it",
    )
    parser.add_argument(
        "--words",
        nargs="?",
        const="",
        metavar="WORD,WORD",
        help="draw the attention of these words of the question, with all tokens, in the layers of --layers "
        "(without --ratios; 1 is the first); without words: the salient words and the last token",
    )


def run(args: Namespace) -> int:
    """Draw, save; returns the exit code.

    Raises:
        UserError: an unusable file, name or number.
    """
    need("duet viz", "plot", "matplotlib")
    draw, name = _mode(args)
    output = args.output or Path(f"{args.media[0].stem}-{name}.png")
    _check_output(output)
    draw(args, output)
    return 0


def _mode(args: Namespace) -> tuple[Callable[[Namespace, Path], None], str]:
    """What to draw, and its part of the file name."""
    if args.methods is not None:
        return draw_sheet, "methods"
    if wants_attention(args):
        return draw_maps, "attention"
    choose_method(args, str(default_model()) if args.model is None else args.model)
    return _draw_kept, args.method


def _draw_kept(args: Namespace, output: Path) -> None:
    """Answer with the method and without, and draw what each reduction keeps."""
    setup = prepare(args)
    if setup.method == "none":
        raise UserError(f"method {setup.method} keeps all tokens: nothing to draw; choose another --method")
    # after the cheap checks: these load torch and matplotlib
    from duet.engine.attach import detach
    from duet.inference import answer
    from duet.report.heatmaps import draw

    options = {"max_new_tokens": args.max_new_tokens}
    reduced = answer(setup.model, setup.processor, setup.question, traced=True, **options)
    detach(setup.model)
    whole = answer(setup.model, setup.processor, setup.question, **options)
    draw(*_titles(setup, reduced), _views(setup, reduced), _paragraphs(setup, reduced, whole)).savefig(output)
    say(f"{reduced.text}\nwith all tokens: {whole.text}\ndrawn in {output}")


def _check_output(output: Path) -> None:
    if output.suffix.lower() not in FORMATS:
        raise UserError(f"{output}: cannot write {output.suffix or 'a file without suffix'}; use {', '.join(FORMATS)}")
    check_output_file(output)


def _views(setup: Setup, answer: Answer) -> list[View]:
    from duet.report.kept import kept_patches
    from duet.report.views import make_views

    assert answer.trace is not None
    regions = setup.question.regions
    kept = kept_patches(answer.trace, [region.patches for region in regions])
    return make_views(setup.question.media, regions, kept)


def _titles(setup: Setup, answer: Answer) -> tuple[str, str]:
    assert answer.trace is not None
    counts = setup.counts(answer.trace)
    tokens = " → ".join(map(str, counts.tokens))
    return (
        f"{setup.title} on {Path(setup.path).name}",
        f"{tokens} visual tokens, {counts.average:.1f} on average over the layers",
    )


def _paragraphs(setup: Setup, answer: Answer, whole: Answer) -> list[Paragraph]:
    from duet.report.textblock import Paragraph, plain

    paragraphs = [Paragraph(label, words) for label, words in _questions(setup, answer)]
    for label, text in ((f"answer of {setup.title}", answer.text), ("answer with all visual tokens", whole.text)):
        paragraphs.append(Paragraph(label, plain(text or "(nothing)"), bold=True))
    return paragraphs


def _questions(setup: Setup, answer: Answer) -> list[tuple[str, list[tuple[str, bool]]]]:
    """The question with the voting words marked; once if the same ones voted at every drop."""
    import torch

    from duet.text.salient import marked_words, without_system

    def marked(voters: Any) -> list[tuple[str, bool]]:
        mask = torch.zeros(len(answer.input_ids), dtype=torch.bool)
        mask[voters] = True
        return without_system(marked_words(setup.processor.tokenizer, answer.input_ids, mask))

    assert answer.trace is not None
    votes = {stage.boundary: marked(stage.voters[0]) for stage in answer.trace.stages}
    if not votes:
        return [("question", marked([]))]
    if all(words == next(iter(votes.values())) for words in votes.values()):
        return [("question, voting words marked", next(iter(votes.values())))]
    return [(f"question, the words that voted after layer {layer} marked", words) for layer, words in votes.items()]
