"""`duet train RECIPE [section.key=value ...]`, `duet train build`, `duet train merge`."""

from __future__ import annotations

import sys
from argparse import SUPPRESS, ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from duet.cli.output import say

SUMMARY = "train by a recipe; assemble a model to train; merge an adapter"
EXAMPLES = """examples:
  duet train build lmsys/vicuna-7b-v1.5 --tower openai/clip-vit-large-patch14-336 --output checkpoints/start
  duet train configs/train/llava15_pretrain.yaml model.model_name_or_path=checkpoints/start training.output_dir=runs/pre
  duet train configs/train/llava15_finetune_lora.yaml model.projector=runs/pre/mm_projector.bin
  duet train merge runs/lora --output checkpoints/llava-duet --dtype bfloat16
  duet train build liuhaotian/llava-v1.5-7b --output checkpoints/llava-v1.5-7b-stock
  duet train --model_name_or_path checkpoints/start --data_path rows.json --lora_enable True --lora_r 128 \\
      --mm_projector_lr 2e-5 --output_dir runs/lora        # LLaVA's flags

The same on several GPUs: torchrun --nproc_per_node 8 -m duet.cli.main train RECIPE ...
`duet train build --help` and `duet train merge --help` say what these take; docs/training.md has the recipes' fields.
"""
ACTIONS = ("build", "merge")
KINDS = ("llava", "llava_next", "video_llava")


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments, for the help."""
    parser.usage = "duet train RECIPE [section.key=value ...] [--flag value ...] | build ... | merge ..."
    parser.add_argument(
        "recipe", metavar="RECIPE", help="YAML file with the sections model, data, compression, training"
    )
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="replaces an entry of the recipe")
    parser.add_argument("--dry-run", action="store_true", help="print the whole recipe, and train nothing")


def run(args: Namespace) -> int:
    """Train, build or merge; returns the exit code.

    Raises:
        UserError: an unusable file, name or number.
    """
    words: Sequence[str] = args.raw_words
    if words and words[0] in ACTIONS:
        parser = _parser(words[0], type(args.parser))
        if "-h" in words or "--help" in words:
            say(parser.format_help().rstrip())
            return 0
        given = parser.parse_args(words[1:])
        return _build(given) if words[0] == "build" else _merge(given)
    from duet.train.run import train

    return train(list(words), show=say)


def _parser(action: str, kind: Any) -> ArgumentParser:
    """The parser of `build` or `merge`; `kind` is the class of all our parsers."""
    about = {
        "build": "write a stock folder from a language model and a tower, or from any checkpoint",
        "merge": "write an adapter and its base as one stock folder; every layer is merged in float32",
    }
    parser = kind(prog=f"duet train {action}", description=about[action])
    if action == "build":
        parser.add_argument("path", metavar="MODEL", help="folder or hub id: Vicuna, LLaMA, Mistral, or any checkpoint")
        parser.add_argument("--tower", metavar="PATH", help="CLIP tower; for pictures, if there is --video-tower")
        parser.add_argument("--video-tower", metavar="PATH", help="LanguageBind tower for videos")
        parser.add_argument("--kind", choices=KINDS, default="llava", help="what to make of a language model")
        parser.add_argument("--projector", metavar="FILE", help="a trained projector (mm_projector.bin), not a new one")
        parser.add_argument("--seed", type=int, default=0, help="of new weights (default: 0)")
    else:
        parser.add_argument("path", metavar="ADAPTER", help="folder or hub id of an adapter, ours or LLaVA's")
    parser.add_argument("--output", required=True, metavar="DIR", help="the new folder")
    parser.add_argument("--model-base", metavar="PATH", help="base of an adapter or projector (default: as it says)")
    parser.add_argument(
        "--dtype", choices=("float32", "float16", "bfloat16"), help="type of the weights (default: as they are)"
    )
    parser.add_argument("--debug", action="store_true", help=SUPPRESS)
    return parser


def _build(args: Namespace) -> int:
    import torch

    from duet.train.build import build_folder

    _quiet(args)
    folder = build_folder(
        args.path,
        args.output,
        args.tower,
        video_tower=args.video_tower,
        kind=args.kind,
        seed=args.seed,
        dtype=getattr(torch, args.dtype) if args.dtype else None,
        projector=args.projector,
        model_base=args.model_base,
    )
    say(f"{args.path} is in {folder}")
    return 0


def _merge(args: Namespace) -> int:
    import torch

    from duet.train.build import merge_folder

    _quiet(args)
    dtype = getattr(torch, args.dtype) if args.dtype else None
    folder = merge_folder(args.path, Path(args.output), dtype=dtype, model_base=args.model_base)
    say(f"{args.path} is merged in {folder}")
    return 0


def _quiet(args: Namespace) -> None:
    from transformers.utils import logging

    if not args.debug:
        logging.set_verbosity_error()
        logging.disable_progress_bar()
    sys.stdout.flush()
