"""Options for a question about pictures and videos, and the loaded model with the encoded question."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import duet
from duet.cli.compression import add_compression_arguments, check_budget, choose_method, find_budget, switches_of
from duet.cli.model import add_model_arguments, load_model
from duet.cli.style import add_style, style_of
from duet.cli.values import positive
from duet.errors import UserError
from duet.files import check_text, is_file, regular_file
from duet.shipped import default_model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from duet.budget import Budget
    from duet.engine.trace import Trace
    from duet.inference import Question


def add_question_arguments(parser: ArgumentParser) -> None:
    """Declare pictures and videos, question, model, method, budget and switches."""
    parser.add_argument("media", nargs="+", type=Path, metavar="FILE", help="picture(s) and video(s), in order")
    parser.add_argument("question", metavar="QUESTION", help="in quotes; may place the files with <image> and <video>")
    parser.add_argument("--frames", type=positive, metavar="N", help="frames per video (default: the model's own rule)")
    add_style(parser)
    parser.add_argument("--max-new-tokens", type=positive, default=64, help="longest answer (default: 64)")
    add_model_arguments(parser)
    add_compression_arguments(parser)


class Counts(NamedTuple):
    """Visual tokens of a prompt.

    Attributes:
        tokens: made by the processor, then left after each reduction.
        boundaries: number of layers before each reduction; 0 is the input of the language model.
        average: tokens that enter a layer, averaged over the layers.
    """

    tokens: list[int]
    boundaries: list[int]
    average: float


@dataclass(frozen=True)
class Setup:
    """A loaded model with compression attached, what is attached, and the question.

    Attributes:
        model, processor: from `duet.load`.
        path: of the checkpoint.
        method: canonical name.
        title: the given name, with the canonical one if it differs.
        budget: `Budget()` if the method keeps all tokens.
        question: the encoded prompt.
    """

    model: nn.Module
    processor: Any
    path: str
    method: str
    title: str
    budget: Budget
    question: Question

    def counts(self, trace: Trace) -> Counts:
        """Tokens that a run of the question kept."""
        from duet.budget.counts import mean_over_layers

        left = trace.counts()
        config: Any = self.model.config
        average = mean_over_layers(list(left.values()), list(left), config.get_text_config().num_hidden_layers)
        return Counts([trace.full[0], *(left[boundary] for boundary in trace.reduced)], trace.reduced, average)


@dataclass(frozen=True)
class Opened:
    """A loaded model and the question, nothing attached.

    Attributes:
        model, processor, path, question: as in `Setup`.
    """

    model: nn.Module
    processor: Any
    path: str
    question: Question

    def attach(self, args: Namespace) -> Setup:
        """Attach the method, budget and switches of the arguments.

        Raises:
            UserError: an unusable name or number.
        """
        from duet.budget import Backbone
        from duet.method_table import find_method

        method = find_method(args.method)
        # as many tokens as the processor made: pictures of any size, tiles and frames
        sizes = [region.patches for region in self.question.regions]
        budget = find_budget(args, method, Backbone.from_config(self.model.config).with_units(sizes))
        duet.attach(self.model, args.method, budget, tokenizer=self.processor.tokenizer, **switches_of(args))
        title = method.name if args.method == method.name else f"{args.method} ({method.name})"
        return Setup(self.model, self.processor, self.path, method.name, title, budget, self.question)


def open_question(args: Namespace) -> Opened:
    """Load the model of the arguments, and encode the question.

    Raises:
        UserError: an unusable file, name or number; cheap checks come before the model is loaded.
    """
    _check_question(args.media, args.question, args.frames, args.fps)
    style_of(args)
    path = str(default_model()) if args.model is None else args.model
    model, processor = load_model(args, path)
    return Opened(model, processor, path, _encode(args, model, processor))


def prepare(args: Namespace) -> Setup:
    """`open_question`, then attach the method of the arguments.

    Raises:
        UserError: an unusable file, name or number; cheap checks come before the model is loaded.
    """
    from duet.method_table import find_method

    choose_method(args, str(default_model()) if args.model is None else args.model)
    check_budget(args, find_method(args.method))
    return open_question(args).attach(args)


def _encode(args: Namespace, model: nn.Module, processor: Any) -> Question:
    from duet.data.media import is_video, open_medium
    from duet.families import find_asking
    from duet.inference import encode

    asking = find_asking(model, processor)
    for path in args.media:
        if not asking.takes_videos and is_video(path):
            raise UserError(f"{path} is a video; {args.model or 'this model'} takes only pictures")
    style = style_of(args)
    frames = style.frames(asking) if args.frames is None else lambda _: args.frames
    media = [open_medium(path, frames) for path in args.media]
    return encode(model, processor, media, args.question, style)


def _check_question(media: Sequence[Path], question: str, frames: int | None, fps: float | None) -> None:
    from duet.data.media import is_video
    from duet.data.video import MOST_FRAMES

    if is_file(question):
        raise UserError(f"the last argument is the question, but {question} is a file: put the question after it")
    for path in media:
        regular_file(path)
    if (frames is not None or fps is not None) and not any(is_video(path) for path in media):
        raise UserError("--frames and --fps have no effect: there is no video among the files")
    if frames is not None and fps is not None:
        raise UserError("--frames and --fps both say how many frames are read; give one of them")
    if frames is not None and frames > MOST_FRAMES:
        raise UserError(f"--frames {frames}: at most {MOST_FRAMES} frames of a video are supported")
    check_text(question, "the question")
