"""Options for a model to load: its name, device, type of weights and attention kernel."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

from duet import loading
from duet.errors import UserError


def add_model_arguments(parser: ArgumentParser, named: bool = True) -> Any:
    """Declare the loading options, and `--model` if `named`; returns the group."""
    model = parser.add_argument_group("model")
    if named:
        model.add_argument("--model", metavar="PATH", help="checkpoint folder or hub id (default: the small model)")
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
