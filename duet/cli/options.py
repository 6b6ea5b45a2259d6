"""Options for model, method and budget that several commands share, and the objects built from them."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import duet
from duet import loading
from duet.cli.style import add_style, style_of
from duet.cli.values import amount, amounts, choice, layer_or_layers, no_number, option, positive, tokens
from duet.errors import UserError
from duet.files import check_text, is_file, regular_file
from duet.registry import described
from duet.shipped import default_model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from duet.budget import Backbone, Budget
    from duet.engine.trace import Trace
    from duet.inference import Question
    from duet.method_table import Method

#: Average share of the visual tokens kept by default: the paper's 128 of 576.
DEFAULT_SHARE = 2 / 9
#: `(tokens per picture, decoder layers)` of the model for which the paper gives a budget of that share.
PAPER_SHAPE, PAPER_BUDGET = (576, 32), "llava15_128"

NUMBERS = ("dominant", "contextual", "cluster_width", "layers", "ratios", "keep", "entry", "frozen")
SWITCHES = {
    "contextual_merge": "released, paper or visionzip: how contextual tokens are made",
    "score": "cls_row or column_mean: what makes a patch dominant",
    "text_guidance": "last, all, salient or attention: which text tokens vote",
    "positions": "renumber or keep the position ids of the remaining tokens",
    "ratio_base": "entered or compounding: the base of the stage-2 ratios",
    "salient_rule": "stopwords or pos: which words are salient",
    "attention": "plain or proportional: a merged token counts once, or as often as it has patches",
    "newlines": "keep or drop: newline tokens between the rows of a picture (LLaVA-NeXT)",
}


def add_question_arguments(parser: ArgumentParser) -> None:
    """Declare pictures and videos, question, model, method, budget and switches."""
    parser.add_argument("media", nargs="+", type=Path, metavar="FILE", help="picture(s) and video(s), in order")
    parser.add_argument("question", metavar="QUESTION", help="in quotes; may place the files with <image> and <video>")
    parser.add_argument("--frames", type=positive, metavar="N", help="frames per video (default: the model's own rule)")
    add_style(parser)
    parser.add_argument("--max-new-tokens", type=positive, default=64, help="longest answer (default: 64)")
    model = add_model_arguments(parser)
    model.add_argument("--model", metavar="PATH", help="checkpoint folder or hub id (default: the small model)")
    add_compression_arguments(parser)


def add_model_arguments(parser: ArgumentParser) -> Any:
    """Declare the loading options; returns the group, for the model's name."""
    model = parser.add_argument_group("model")
    model.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: the accelerator if there is one)")
    model.add_argument(
        "--dtype",
        choices=("float32", "float16", "bfloat16"),
        help="type of the weights (default: the checkpoint's; float32 on a CPU)",
    )
    model.add_argument(
        "--attn-implementation", choices=("sdpa", "eager", "flash_attention_2"), help="attention kernel (default: sdpa)"
    )
    model.add_argument(
        "--model-base", metavar="PATH", help="base model of an adapter or a projector (default: the one that it names)"
    )
    return model


def add_compression_arguments(parser: ArgumentParser) -> None:
    """Declare method, budget and switches."""
    compression = parser.add_argument_group(
        "compression", "One of --budget, --average, or the numbers; default: two ninths of the tokens."
    )
    compression.add_argument(
        "--method", help="a name from `duet methods` (default: what the checkpoint was trained with, else duet)"
    )
    compression.add_argument(
        "--budget", type=no_number, metavar="NAME", help="a name from `duet budget list`, or a file of duet schedule"
    )
    compression.add_argument(
        "--average", type=tokens, metavar="TOKENS", help="solve for this average of tokens per layer"
    )
    compression.add_argument(
        "--dominant", type=amount, help="tokens kept per picture, including CLS (170; a share: 0.3)"
    )
    compression.add_argument("--contextual", type=amount, help="merged tokens per picture (35; a share: 0.06)")
    compression.add_argument("--cluster-width", type=positive, help="patches merged per contextual token (default: 4)")
    compression.add_argument("--layers", type=amounts, help="drop after these layers (16,24; shares: 0.5,0.75)")
    compression.add_argument("--ratios", type=amounts, help="shares of the entering tokens left after them (0.5,0)")
    add_shape_arguments(compression)
    compression.add_argument(
        "--shape", metavar="NAME", help="with --average: duet_safe, a budget's or a file's, not the method's own"
    )
    parser.set_defaults(trained=None)
    add_switches(parser)


def choose_method(args: Namespace, path: str) -> None:
    """Fill in what the checkpoint was trained with where no method is given, else `duet`; says so in one line.

    Raises:
        CheckpointError: its duet_config.json is damaged.
    """
    from duet.checkpoints.setting import find_setting

    if args.method is not None:
        return
    trained = find_setting(path)
    args.method = "duet" if trained is None else trained.method
    if trained is None:
        return
    for name, value in trained.switches.items():
        if name in SWITCHES:
            setattr(args, name, value if getattr(args, name) is None else getattr(args, name))
        elif name not in dict(args.option):
            args.option.append((name, value))
    args.companion = args.companion or trained.companion
    told = "with the budget given"
    if args.budget is None and args.average is None and not _numbers(args):
        args.trained, told = trained.budget, described(trained.budget)
    sys.stderr.write(f"{path}: {trained.method} as it was trained (duet_config.json), {told}\n")


def add_shape_arguments(parser: Any) -> None:
    """Declare the numbers beyond the paper's: absolute counts, entry, frozen and away layers."""
    parser.add_argument("--keep", type=amounts, help="instead of --ratios, tokens left per picture (48,16)")
    parser.add_argument("--entry", type=amount, help="visual tokens enter after this layer (8; a share: 0.25)")
    parser.add_argument(
        "--frozen",
        type=layer_or_layers,
        help="read them but do not update them from this layer on (16; a share: 0.5), or in these (0,2,17)",
    )
    parser.add_argument("--away", type=amounts, help="layers without visual tokens, which come back after them (2,3)")


def add_switches(parser: ArgumentParser) -> None:
    """Declare the switches, including those of single methods."""
    switches = parser.add_argument_group(
        "switches", "Where paper and released code differ; default: the released code."
    )
    for name, meaning in SWITCHES.items():
        switches.add_argument(f"--{name.replace('_', '-')}", type=choice, metavar="CHOICE", help=meaning)
    switches.add_argument(
        "--option",
        type=option,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a switch that only this method has, e.g. alpha=2.0 (`duet methods NAME` lists them); may be repeated",
    )
    switches.add_argument(
        "--companion", metavar="PATH", help="CLIP checkpoint of the tower, for methods that need its text tower"
    )


def switches_of(args: Namespace) -> dict[str, Any]:
    """The given switches, for `duet.attach`."""
    from duet.method_table import find_method

    given = {name: getattr(args, name) for name in (*SWITCHES, "companion") if getattr(args, name) is not None}
    if "positions" in given and not find_method(args.method).stages:
        raise UserError(f"method {args.method} keeps all tokens; --positions would do nothing")
    for name, value in args.option:
        if name in given or name in SWITCHES:
            raise UserError(f"--option {name}: given twice, or has its own option (--{name.replace('_', '-')})")
        given[name] = value
    return given


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


def find_budget(args: Namespace, method: Method, backbone: Backbone) -> Budget:
    """The budget of the arguments, for a method on a model."""
    from duet.budget import Budget, resolve_budget

    given: Budget | str | float | None = args.budget if args.budget is not None else args.average
    if given is None and _numbers(args):
        given = Budget(**_numbers(args), **_base(args))
    elif given is None and method.stages:
        paper = (backbone.patches, backbone.decoder.layers) == PAPER_SHAPE
        given = args.trained or (PAPER_BUDGET if paper else DEFAULT_SHARE * backbone.full)
    return resolve_budget(
        given, method.schedule, backbone, method=args.method, ratio_base=args.ratio_base, shape=args.shape
    )


def _numbers(args: Namespace) -> dict[str, Any]:
    return {name: getattr(args, name) for name in NUMBERS if getattr(args, name) is not None}


def _base(args: Namespace) -> dict[str, Any]:
    """The switch that applies when a budget is solved; it goes with every way to give a budget."""
    return {} if args.ratio_base is None else {"ratio_base": args.ratio_base}


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


def check_budget(args: Namespace, method: Method | None) -> None:
    """Whether the ways to ask for a budget fit each other and the method, None for several; loads no model.

    Raises:
        UserError: they don't.
    """
    from duet.budget import Budget, find_row
    from duet.budget.names import find_shape
    from duet.method_table import reads_width

    ways = [f"--{name}" for name in ("budget", "average") if getattr(args, name) is not None]
    ways += [" ".join(f"--{name.replace('_', '-')}" for name in _numbers(args))] if _numbers(args) else []
    if len(ways) > 1:
        raise UserError(f"{' and '.join(ways)} contradict each other; give one of them")
    if args.shape is not None:
        if args.average is None:
            raise UserError("--shape goes with --average, which it is solved for")
        find_shape(args.shape)
    shaped = set(_numbers(args)) <= {"layers", "ratios", "entry", "frozen"} and args.budget is None
    if ways and method is not None and not method.stages and not (shaped and args.average is None):
        raise UserError(f"method {args.method} keeps all tokens; {ways[0]} would have no effect")
    if method is not None and args.cluster_width is not None and not reads_width(method, args.contextual_merge):
        raise UserError(f"method {args.method} makes no local clusters; --cluster-width would do nothing")
    if args.budget is not None:
        find_row(args.budget)
    Budget(**_numbers(args), **_base(args))


def load_model(args: Namespace, path: str) -> tuple[Any, Any]:
    """Load the checkpoint of the arguments, quietly without `--debug`.

    Raises:
        UserError: no such device or attention kernel here, or the checkpoint cannot be loaded.
    """
    from transformers.utils import logging

    if not args.debug:
        logging.set_verbosity_error()
        logging.disable_progress_bar()
    _check_device(args.device)
    wanted = {"device": args.device, "dtype": args.dtype, "attn_implementation": args.attn_implementation}
    if args.model_base is not None:
        wanted["model_base"] = args.model_base
    try:
        return loading.load_stock(path, **wanted)
    except ImportError as error:
        # transformers' error for an attention kernel that is not installed
        raise UserError(f"--attn-implementation {args.attn_implementation}: {error}") from error


def _check_device(name: str | None) -> None:
    import torch

    if name is None:
        return
    here = torch.accelerator.current_accelerator(check_available=True)
    try:
        kind = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"--device {name!r} is not a device; give cpu, cuda, cuda:1 or mps") from error
    if kind.type != "cpu" and (here is None or kind.type != here.type):
        raise UserError(f"--device {name}: this machine has {here.type if here else 'no accelerator'}; see duet doctor")
    if kind.index is not None and kind.type != "cpu" and kind.index >= torch.accelerator.device_count():
        raise UserError(f"--device {name}: the last one is {kind.type}:{torch.accelerator.device_count() - 1}")
