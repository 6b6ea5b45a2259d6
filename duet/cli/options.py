"""Which model, which method, which budget: the options that several commands share, and what they build."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import duet
from duet.cli.values import amount, amounts, choice, option, positive, tokens
from duet.errors import UserError
from duet.files import check_text, is_file, regular_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from duet.budget import Backbone, Budget
    from duet.engine.trace import Trace
    from duet.inference import Question
    from duet.method_table import Method

#: Trained in this repository; where it lies in a source tree.
MINI = Path("playground", "mini", "checkpoints", "llava-mini")
#: Share of the visual tokens that is left on average where no budget is given: the paper's 128 of 576.
DEFAULT_SHARE = 2 / 9
#: `(tokens per picture, decoder layers)` of the model that the paper's budget for that share is made for.
PAPER_SHAPE, PAPER_BUDGET = (576, 32), "llava15_128"

NUMBERS = ("dominant", "contextual", "cluster_width", "layers", "ratios")
SWITCHES = {
    "contextual_merge": "released, paper or visionzip: how contextual tokens are made",
    "score": "cls_row or column_mean: what makes a patch dominant",
    "text_guidance": "last, all, salient or attention: which text tokens vote",
    "positions": "renumber or keep: position ids of the tokens that are left",
    "ratio_base": "entered or compounding: what stage-2 ratios are shares of",
    "salient_rule": "stopwords or pos: which words are salient",
    "newlines": "keep or drop: newline tokens between the rows of a picture, where a model has them",
}


def add_question_arguments(parser: ArgumentParser) -> None:
    """Declare pictures and videos, question, model, method, budget and switches."""
    parser.add_argument("media", nargs="+", type=Path, metavar="FILE", help="picture(s) and video(s), in order")
    parser.add_argument(
        "question", metavar="QUESTION", help="in quotes; <image> and <video> in it may say where the files go"
    )
    parser.add_argument("--frames", type=positive, metavar="N", help="of each video (default: the model's own rule)")
    parser.add_argument("--max-new-tokens", type=positive, default=64, help="cut the answer off here (default: 64)")
    model = add_model_arguments(parser)
    model.add_argument(
        "--model", metavar="PATH", help="checkpoint folder or hub id (default: the small model of playground/mini)"
    )
    add_compression_arguments(parser)


def add_model_arguments(parser: ArgumentParser) -> Any:
    """Declare how a model is loaded; returns the group, for the name of the model."""
    model = parser.add_argument_group("model")
    model.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: the accelerator if there is one)")
    model.add_argument(
        "--dtype",
        choices=("float32", "float16", "bfloat16"),
        help="of the weights (default: the checkpoint's, float32 on a CPU)",
    )
    model.add_argument(
        "--attn-implementation", choices=("sdpa", "eager", "flash_attention_2"), help="attention kernel (default: sdpa)"
    )
    return model


def add_compression_arguments(parser: ArgumentParser) -> None:
    """Declare method, budget and switches."""
    compression = parser.add_argument_group(
        "compression", "One of --budget, --average, or the numbers; default: two ninths of the tokens."
    )
    compression.add_argument("--method", default="duet", help="a name of `duet methods` (default: duet)")
    compression.add_argument("--budget", metavar="NAME", help="a name of `duet budget list`")
    compression.add_argument("--average", type=tokens, metavar="TOKENS", help="solve for this mean over the layers")
    compression.add_argument("--dominant", type=amount, help="tokens kept per picture, CLS counted (170; a share: 0.3)")
    compression.add_argument("--contextual", type=amount, help="merged tokens per picture (35; a share: 0.06)")
    compression.add_argument("--cluster-width", type=positive, help="patches merged per contextual token (default: 4)")
    compression.add_argument("--layers", type=amounts, help="drop behind these layers (16,24; shares: 0.5,0.75)")
    compression.add_argument("--ratios", type=amounts, help="share of the tokens that entered left behind them (0.5,0)")
    add_switches(parser)


def add_switches(parser: ArgumentParser) -> None:
    """Declare the switches, those of single methods among them."""
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
    """What was given of the switches, for `duet.attach`."""
    from duet.method_table import find_method

    given = {name: getattr(args, name) for name in (*SWITCHES, "companion") if getattr(args, name) is not None}
    if "positions" in given and not find_method(args.method).stages:
        raise UserError(f"method {args.method} keeps all tokens; --positions would do nothing")
    for name, value in args.option:
        if name in given or name in SWITCHES:
            raise UserError(f"--option {name}: given twice, or a switch of its own (--{name.replace('_', '-')})")
        given[name] = value
    return given


class Counts(NamedTuple):
    """Visual tokens of a prompt.

    Attributes:
        tokens: as the processor made them, then behind each reduction.
        boundaries: layers that had run at each reduction; 0 is the entrance of the language model.
        average: mean over the layers of those that enter the layer.
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
        title: the name that was asked for, and the canonical one beside it where it is another.
        budget: `Budget()` where the method keeps all tokens.
        question: as the model takes it.
    """

    model: nn.Module
    processor: Any
    path: str
    method: str
    title: str
    budget: Budget
    question: Question

    def counts(self, trace: Trace) -> Counts:
        """What a run of the question kept."""
        from duet.budget.counts import mean_over_layers

        left = trace.counts()
        config: Any = self.model.config
        average = mean_over_layers(list(left.values()), list(left), config.get_text_config().num_hidden_layers)
        boundaries = [boundary for boundary in left if boundary or trace.reductions]
        return Counts([trace.full[0], *(left[boundary] for boundary in boundaries)], boundaries, average)


@dataclass(frozen=True)
class Opened:
    """A loaded model and the question, nothing attached.

    Attributes:
        model, processor, path, question: as of `Setup`.
    """

    model: nn.Module
    processor: Any
    path: str
    question: Question

    def attach(self, args: Namespace) -> Setup:
        """Attach the method that the arguments name, under their budget and switches.

        Raises:
            UserError: a name or number that does not fit.
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
    """Load the model that the arguments name, and make the question for it.

    Raises:
        UserError: a file, name or number that does not fit; cheap checks come before the model is loaded.
    """
    _check_question(args.media, args.question, args.frames)
    path = str(default_model()) if args.model is None else args.model
    model, processor = load_model(args, path)
    return Opened(model, processor, path, _encode(args, model, processor))


def prepare(args: Namespace) -> Setup:
    """`open_question`, and attach the method that the arguments ask for.

    Raises:
        UserError: a file, name or number that does not fit; cheap checks come before the model is loaded.
    """
    from duet.method_table import find_method

    check_budget(args, find_method(args.method))
    return open_question(args).attach(args)


def default_model() -> Path:
    """The small model beside the package.

    Raises:
        UserError: it is not there, as in an installation without the repository.
    """
    folder = Path(duet.__file__).parents[1] / MINI
    if not (folder / "config.json").exists():
        raise UserError(f"the small model is not there ({folder}): name a checkpoint folder or hub id with --model")
    return folder


def find_budget(args: Namespace, method: Method, backbone: Backbone) -> Budget:
    """The budget that the arguments ask for, for a method on a model."""
    from duet.budget import Budget, resolve_budget

    given: Budget | str | float | None = args.budget if args.budget is not None else args.average
    if given is None and method.stages:
        paper = (backbone.patches, backbone.decoder.layers) == PAPER_SHAPE
        given = PAPER_BUDGET if paper else DEFAULT_SHARE * backbone.full
        given = Budget(**_numbers(args), **_base(args)) if _numbers(args) else given
    return resolve_budget(given, method.schedule, backbone, method=args.method, ratio_base=args.ratio_base)


def _numbers(args: Namespace) -> dict[str, Any]:
    return {name: getattr(args, name) for name in NUMBERS if getattr(args, name) is not None}


def _base(args: Namespace) -> dict[str, Any]:
    """The switch that a budget has to be solved under; it is no number of its own, it goes with all ways to ask."""
    return {} if args.ratio_base is None else {"ratio_base": args.ratio_base}


def _encode(args: Namespace, model: nn.Module, processor: Any) -> Question:
    from duet.data.media import is_video, open_medium
    from duet.families import find_asking
    from duet.inference import encode

    asking = find_asking(model, processor)
    for path in args.media:
        if not asking.takes_videos and is_video(path):
            raise UserError(f"{path} is a video; {args.model or 'this model'} takes pictures only")
    frames = asking.frames if args.frames is None else lambda _: args.frames
    media = [open_medium(path, frames) for path in args.media]
    return encode(model, processor, media, args.question)


def _check_question(media: Sequence[Path], question: str, frames: int | None) -> None:
    from duet.data.media import is_video
    from duet.data.video import MOST_FRAMES

    if is_file(question):
        raise UserError(f"the last argument is the question, but {question} is a file: put the question after it")
    for path in media:
        regular_file(path)
    if frames is not None and not any(is_video(path) for path in media):
        raise UserError("--frames does nothing: there is no video among the files")
    if frames is not None and frames > MOST_FRAMES:
        raise UserError(f"--frames {frames}: at most {MOST_FRAMES} frames of a video are taken")
    check_text(question, "the question")


def check_budget(args: Namespace, method: Method | None) -> None:
    """Whether the ways to ask for a budget fit each other and the method, None for several; loads no model.

    Raises:
        UserError: they don't.
    """
    from duet.budget import Budget, find_row
    from duet.method_table import reads_width

    ways = [f"--{name}" for name in ("budget", "average") if getattr(args, name) is not None]
    ways += [" ".join(f"--{name.replace('_', '-')}" for name in _numbers(args))] if _numbers(args) else []
    if len(ways) > 1:
        raise UserError(f"{' and '.join(ways)} contradict each other; give one of them")
    if ways and method is not None and not method.stages:
        raise UserError(f"method {args.method} keeps all tokens; {ways[0]} would do nothing")
    if method is not None and args.cluster_width is not None and not reads_width(method, args.contextual_merge):
        raise UserError(f"method {args.method} makes no local clusters; --cluster-width would do nothing")
    if args.budget is not None:
        find_row(args.budget)
    Budget(**_numbers(args), **_base(args))


def load_model(args: Namespace, path: str) -> tuple[Any, Any]:
    """Load a checkpoint as the arguments say, quietly unless they ask for `--debug`.

    Raises:
        UserError: no such device or attention kernel here, or the checkpoint can't be loaded.
    """
    from transformers.utils import logging

    if not args.debug:
        logging.set_verbosity_error()
        logging.disable_progress_bar()
    _check_device(args.device)
    wanted = {"device": args.device, "dtype": args.dtype, "attn_implementation": args.attn_implementation}
    try:
        return duet.load(path, **wanted)
    except ImportError as error:
        # transformers' word for an attention kernel that is not installed
        raise UserError(f"--attn-implementation {args.attn_implementation}: {error}") from error


def _check_device(name: str | None) -> None:
    import torch

    if name is None:
        return
    here = torch.accelerator.current_accelerator()
    try:
        kind = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"--device {name!r} is no device; give cpu, cuda, cuda:1 or mps") from error
    if kind.type != "cpu" and (here is None or kind.type != here.type):
        raise UserError(f"--device {name}: this machine has {here.type if here else 'no accelerator'}; see duet doctor")
    if kind.index is not None and kind.type != "cpu" and kind.index >= torch.accelerator.device_count():
        raise UserError(f"--device {name}: the last one is {kind.type}:{torch.accelerator.device_count() - 1}")
