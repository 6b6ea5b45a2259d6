"""What the benchmark scripts of one model share: options of model and clock, checks, writing of results."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.families import build_model
from benchmarks.machine import describe_machine
from benchmarks.measure import CLOCKS
from benchmarks.shapes import SHAPES
from duet.errors import UserError

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Sequence

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
RESULTS = Path(__file__).parent / "results"

Result = dict[str, Any]


def run(
    parser: ArgumentParser,
    measure: Callable[[Namespace], Result],
    render: Callable[[Result], str],
    prefix: str = "",
    arguments: Sequence[str] | None = None,
) -> int:
    """Parse, measure, write JSON and Markdown, print the table; returns the exit code.

    Args:
        parser: from `model_parser`.
        measure: its options -> the result.
        render: the result -> Markdown.
        prefix: of the file name in `benchmarks/results`, before shape and dtype.
        arguments: of the command line; None: the process's.
    """
    options = parser.parse_args(arguments)
    try:
        result = measure(options)
    except UserError as error:
        parser.error(str(error))
    output = options.output or RESULTS / f"{prefix}{options.shape}-{options.dtype}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    table = render(result)
    output.with_suffix(".md").write_text(table, encoding="utf-8")
    sys.stdout.write(table)
    return 0


def start(options: Namespace) -> tuple[Any, Result]:
    """The model on its device, and the facts that every result begins with: options and machine.

    Raises:
        UserError: a device or a clock that this machine does not support.
    """
    if options.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: PyTorch sees no CUDA or ROCm device here; use --device cpu")
    if options.clock == "process" and (options.device != "cpu" or options.threads != 1):
        raise UserError("--clock process adds up the time of all threads: use it with --device cpu --threads 1 only")
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    shown = {name: value for name, value in vars(options).items() if name != "output"}
    facts = {"options": shown, "machine": describe_machine(device)}
    return build_model(SHAPES[options.shape], device, DTYPES[options.dtype]), facts


def model_parser(description: str | None, prefix: str = "", repeats: int = 3) -> ArgumentParser:
    """A parser with the shared options.

    Args:
        description: the script's docstring.
        prefix: as of `run`.
        repeats: default number of rounds.
    """
    parser = ArgumentParser(description=description, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="llava15-cpu", help="sizes of the model (%(default)s)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="cuda: ROCm too (%(default)s)")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="dtype of weights and pixels (%(default)s)")
    parser.add_argument("--repeats", type=int, default=repeats, help="measured rounds (%(default)s)")
    parser.add_argument("--warmup", type=int, default=1, help="rounds before, discarded (%(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (%(default)s)")
    parser.add_argument(
        "--clock",
        choices=CLOCKS,
        default="wall",
        help="process: CPU time, for one thread on a busy machine (%(default)s)",
    )
    parser.add_argument("--output", type=Path, help=f"JSON file (benchmarks/results/{prefix}SHAPE-DTYPE.json)")
    return parser


def method_options(parser: ArgumentParser, budgets: list[int], text: bool = True) -> ArgumentParser:
    """The same parser with the options of one method beside the stock model.

    Args:
        parser: from `model_parser`.
        budgets: default averages.
        text: whether the number of text tokens may be chosen.
    """
    parser.add_argument("--method", default="duet", help="a name of `duet methods` (%(default)s)")
    shown = ",".join(map(str, budgets))
    parser.add_argument("--budgets", type=counts, default=budgets, help=f"visual tokens per decoder layer ({shown})")
    if text:
        parser.add_argument("--text", type=int, default=64, help="text tokens per row (%(default)s)")
    return parser


def names(text: str) -> list[str]:
    """`a,b` -> ["a", "b"]."""
    return [name for name in text.split(",") if name]


def counts(text: str) -> list[int]:
    """`192,64` -> [192, 64]."""
    return [int(count) for count in names(text)]
