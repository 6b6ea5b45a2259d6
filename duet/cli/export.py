"""`duet export`: a copy of a checkpoint under the names that another program reads."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from duet.cli.output import say

SUMMARY = "copy a checkpoint under the tensor names of another program"
EXAMPLES = """examples:
  duet export checkpoints/llava-mini-duet --layout vllm -o llava-mini-vllm
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("model", help="folder or hub id of a checkpoint in the Hugging Face layout")
    parser.add_argument("--layout", required=True, choices=("vllm",), help="the program whose names to use")
    parser.add_argument("-o", "--output", required=True, type=Path, help="a new folder")


def run(args: Namespace) -> int:
    """Write the copy; returns the exit code."""
    from duet.checkpoints.export import export

    renamed = export(args.model, args.output, args.layout)
    say(f"{args.output}: {renamed} tensors renamed" if renamed else f"{args.output}: all names were right already")
    if (args.output / "duet_config.json").exists():
        say("vLLM does not read duet_config.json: set DUET_METHOD and DUET_BUDGET (docs/integrations.md)")
    return 0
