"""What commands share that run a model over a file of samples (`duet schedule`, `duet budget spread`)."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from pathlib import Path

from duet.cli.compression import add_switches
from duet.cli.model import add_model_arguments
from duet.cli.values import positive


def add_sample_arguments(parser: ArgumentParser, samples: str, method: str, method_help: str) -> None:
    """Declare samples, method, `--json`, model and switches.

    Args:
        samples: help of `--samples`.
        method: the default, with its help.
    """
    parser.add_argument("--samples", type=Path, required=True, metavar="FILE", help=f"{samples}, JSON lines")
    parser.add_argument("--limit", type=positive, metavar="N", help="at most N samples of each stratum")
    parser.add_argument("--method", default=method, help=f"{method_help} (default: {method})")
    parser.add_argument("--json", action="store_true", help="print all measurements as JSON")
    add_model_arguments(parser)
    add_switches(parser)


def show_progress(line: str) -> None:
    """A line beside the results."""
    sys.stderr.write(f"{line}\n")
