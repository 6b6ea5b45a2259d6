"""`duet viz FILE "question" --layers 2,8 --words`: attention of words in decoder layers, with all tokens."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from duet.cli.compression import NUMBERS, SWITCHES
from duet.cli.output import say
from duet.cli.question import Opened, open_question
from duet.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from duet.inference import Answer
    from duet.report.attention import AttentionMap, Looker

#: Layers shown by default, as shares of the depth.
LAYERS = (0.25, 0.5, 0.75, 1.0)
RELEVANT = ("layers", "salient_rule")


def wants_attention(args: Namespace) -> bool:
    """Whether maps are requested: with `--ratios`, `--layers` belongs to a budget."""
    return args.words is not None or (args.layers is not None and args.ratios is None)


def draw_maps(args: Namespace, output: Path) -> None:
    """Read attention with all visual tokens, draw it, save it.

    Raises:
        UserError: an unknown layer, a word that is not in the question, an option without effect.
    """
    words = _words(args)
    _check_idle(args)
    opened = open_question(args)
    # after the cheap checks: these load torch and matplotlib
    from duet.report.attention_sheet import draw_attention
    from duet.report.views import make_views

    layers = _numbers(args.layers or LAYERS, _depth(opened))
    answer, maps = _read(args, opened, layers, words)
    flat = [one for layer in maps for one in layer]
    regions = opened.question.regions
    units = [[one.units[number] for one in flat] for number in range(len(regions))]
    views = make_views(opened.question.media, regions, units)
    paragraphs = _paragraphs(opened, answer, maps)
    draw_attention(*_titles(opened, answer, maps), views, maps, paragraphs).savefig(output)
    say(f"{answer.text}\ndrawn in {output}")


def _words(args: Namespace) -> list[str] | None:
    """The given words; empty for the voting ones, None for groups of tokens."""
    from duet.report.attention import check_words
    from duet.text.words import split_words

    if not args.words:
        return None if args.words is None else []
    words = [word.strip() for word in args.words.split(",") if word.strip()]
    if not words:
        raise UserError(f"--words {args.words!r} contains no word")
    # before the model is loaded; words before a picture are found later
    check_words(words, [args.question[start:end] for start, end in split_words(args.question)])
    return words


def _check_idle(args: Namespace) -> None:
    given = [name for name in ("budget", "average", *NUMBERS, *SWITCHES) if getattr(args, name) is not None]
    idle = [f"--{name.replace('_', '-')}" for name in given if name not in RELEVANT]
    idle += [f"--method {args.method}"] if args.method not in (None, "duet", "none") else []
    idle += ["--option"] if args.option else []
    idle += ["--companion"] if args.companion is not None else []
    if idle:
        raise UserError(
            f"attention is read with all visual tokens, {', '.join(idle)} has no effect; for what a method keeps "
            "leave --words out, and give --ratios with --layers"
        )
    for layer in args.layers or ():
        if (isinstance(layer, int) and layer < 1) or (isinstance(layer, float) and not 0 < layer <= 1):
            raise UserError(f"--layers {layer}: layers are 1, 2, ... or shares of the depth, such as 0.5")


def _numbers(layers: Sequence[int | float], depth: int) -> list[int]:
    """Ascending, without duplicates."""
    for layer in layers:
        if layer > depth:
            raise UserError(f"--layers {layer}: this model has {depth} decoder layers")
    numbers = (layer if isinstance(layer, int) else max(1, int(layer * depth + 0.5)) for layer in layers)
    return sorted(set(numbers))


def _depth(opened: Opened) -> int:
    config: Any = opened.model.config
    return config.get_text_config().num_hidden_layers


def _read(
    args: Namespace, opened: Opened, layers: list[int], words: list[str] | None
) -> tuple[Answer, list[list[AttentionMap]]]:
    import duet
    from duet.report.attention import find_lookers, look
    from duet.text.salient import salient_finder

    duet.attach(opened.model, "none")
    tokenizer = opened.processor.tokenizer
    salient = salient_finder(tokenizer, rule=args.salient_rule or "stopwords")

    def choose(ids: Tensor, text: Tensor) -> list[Looker]:
        return find_lookers(tokenizer, ids, text, salient, words)

    return look(opened.model, opened.processor, opened.question, layers, choose, args.max_new_tokens)


def _titles(opened: Opened, answer: Answer, maps: Sequence[Sequence[AttentionMap]]) -> tuple[str, str]:
    assert answer.trace is not None
    layers = [str(layer[0].layer) for layer in maps]
    where = f"layer {layers[0]}" if len(layers) == 1 else f"layers {', '.join(layers[:-1])} and {layers[-1]}"
    tokens = answer.trace.entered[0]
    return (
        f"attention in {where} of {Path(opened.path).name}",
        f"{tokens} visual tokens, none dropped; over each map, the share of the word's attention that goes there, and "
        "the largest of one patch",
    )


def _paragraphs(opened: Opened, answer: Answer, maps: Sequence[Sequence[AttentionMap]]) -> list[Any]:
    import torch

    from duet.report.textblock import Paragraph, plain
    from duet.text.salient import marked_words, without_system

    mask = torch.zeros(len(answer.input_ids), dtype=torch.bool)
    for one in maps[0]:
        if one.looker.label != "all text":
            mask[list(one.looker.columns)] = True
    question = without_system(marked_words(opened.processor.tokenizer, answer.input_ids, mask))
    return [
        Paragraph("question, the words shown marked", question),
        Paragraph("answer", plain(answer.text or "(nothing)"), bold=True),
    ]
