"""Runs a training recipe.

    python -m duet.train.run configs/train/mini_finetune.yaml training.max_steps=100 data.image_folder=pictures
    torchrun --nproc_per_node 8 -m duet.train.run RECIPE.yaml training.deepspeed=configs/deepspeed/zero2.json

Writes to `training.output_dir`: the model as a stock Hugging Face folder with its processor, `recipe.yaml` (the recipe
with its overrides), `metrics.jsonl`, and checkpoints from which the same command continues after an interruption.
"""

from __future__ import annotations

import argparse
import logging
import sys
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, set_seed
from transformers.trainer_utils import get_last_checkpoint

import duet
from duet.budget import Backbone, Budget
from duet.checkpoints.files import CheckpointError
from duet.config import build, override, read_mapping, save_config
from duet.data.collate import collate
from duet.data.dataset import ConversationDataset
from duet.data.rows import Row, read_rows
from duet.engine.attach import attached
from duet.engine.call import Compression
from duet.errors import UserError
from duet.files import blame, one_line
from duet.llava.prompts import TEMPLATES
from duet.train.accuracy import ExactAnswers
from duet.train.arguments import DataArguments, Recipe
from duet.train.callbacks import MetricsFile
from duet.train.checks import check_compression, check_pictures, check_recipe, check_space, named
from duet.train.elastic import Between, ElasticBudget
from duet.train.freeze import freeze
from duet.train.ranks import size_of, start_communication
from duet.train.trainer import DuetTrainer

logger = logging.getLogger(__name__)


#: Most tensors of each kind in an error message.
_LISTED = 10


def run(recipe: Recipe) -> None:
    """Train by a recipe, or continue an interrupted run of it.

    Raises:
        UserError: something unusable in the recipe, its data or its checkpoint; if possible, before the model is
            loaded.
    """
    folder = check_recipe(recipe)
    data = recipe.data
    with named("data.data_path and image_folder"):
        rows = read_rows(data.data_path)
        check_pictures(rows, data.image_folder, data.data_path)
    held_out = None
    if data.eval_data_path:
        with named("data.eval_data_path and eval_image_folder"):
            held_out = read_rows(data.eval_data_path)
            check_pictures(held_out, _eval_folder(data), data.eval_data_path)
    output = Path(str(recipe.training.output_dir))
    set_seed(recipe.training.seed)
    model, processor = load_start(recipe, folder)
    learned = freeze(model, recipe.model.freeze, recipe.model.tune_mm_mlp_adapter)
    check_space(model, recipe.training)
    logger.info("%d of %d parameters are trained", learned, sum(map(size_of, model.parameters())))
    share, elastic = attach_compression(model, recipe, processor)
    trainer = DuetTrainer(
        model=model,
        args=recipe.training,
        train_dataset=conversations(recipe, processor, rows, data.image_folder),
        data_collator=partial(collate, pad_token_id=processor.tokenizer.pad_token_id, side="right"),
        processing_class=processor,
        visual_share=share,
    )
    if elastic is not None:
        elastic.show = partial(setattr, trainer, "visual_share")
        trainer.add_callback(elastic)  # before the held-out answers, which run under its last choice
    trainer.add_callback(MetricsFile(output / "metrics.jsonl", lambda: trainer.totals))
    if held_out is not None:
        dataset = conversations(recipe, processor, held_out, _eval_folder(data))
        size = recipe.training.per_device_eval_batch_size
        trainer.add_callback(ExactAnswers(dataset, data.eval_every, size, trainer.log))
    if trainer.is_world_process_zero():
        save_config(recipe, output / "recipe.yaml")
    last = get_last_checkpoint(str(output)) if recipe.training.resume and output.is_dir() else None
    trainer.train(resume_from_checkpoint=last)
    trainer.save_model(str(output))


def load_start(recipe: Recipe, folder: Path) -> tuple[Any, Any]:
    """Model and processor to start from; every weight has to come from the checkpoint.

    Raises:
        CheckpointError: damaged, or its weights do not fit its config.json.
    """
    with blame(folder, CheckpointError):
        processor = AutoProcessor.from_pretrained(folder, backend="pil", trust_remote_code=False)
        loaded: Any = AutoModelForImageTextToText.from_pretrained(
            folder,
            dtype=getattr(torch, recipe.model.dtype),
            attn_implementation=recipe.model.attn_implementation,
            trust_remote_code=False,
            output_loading_info=True,
        )
    model, report = loaded
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        names = sorted(map(str, report.get(kind) or ()))
        if names:
            listed = ", ".join(names[:_LISTED]) + (" ..." if len(names) > _LISTED else "")
            raise CheckpointError(f"the weights in {folder} do not fit its config.json: {kind}: {listed}")
    return model, processor


def attach_compression(model: Any, recipe: Recipe, processor: Any) -> tuple[float, ElasticBudget | None]:
    """Attach the recipe's method.

    Returns:
        The share of visual tokens that a layer sees on average; the callback that draws a budget for every step, None
        if the recipe has one budget only.
    """
    choices = check_compression(recipe.compression)
    if choices is None:
        return 1.0, None
    chosen = recipe.compression

    def make(budget: Budget | str | float) -> Compression:
        duet.attach(
            model, chosen.method, budget, tokenizer=processor.tokenizer, companion=chosen.companion, **chosen.switches
        )
        return attached(model).compression

    if len(choices) > 1 or isinstance(choices[0], Between):
        return 1.0, ElasticBudget(model, choices, make, recipe.training.seed)
    assert choices[0] is not None
    backbone = Backbone.from_config(model.config)
    return make(choices[0]).budget.average(backbone) / backbone.full, None


def conversations(recipe: Recipe, processor: Any, rows: list[Row], folder: str) -> ConversationDataset:
    """The dataset of a conversation file's rows under the recipe's template and picture options."""
    data, limit = recipe.data, recipe.training.model_max_length
    pad = data.image_aspect_ratio == "pad"
    return ConversationDataset(rows, processor, TEMPLATES[data.version], folder, pad, limit)


def _eval_folder(data: DataArguments) -> str:
    return data.image_folder if data.eval_image_folder is None else data.eval_image_folder


class _Parser(argparse.ArgumentParser):
    """Reports an error in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}; {self.prog} --help says more\n")


def main(arguments: list[str] | None = None) -> int:
    """Command line: a recipe and overrides; returns the exit code."""
    parser = _Parser(prog="duet.train.run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="YAML file with the sections model, data, compression, training")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    parsed = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    try:
        settings = override(read_mapping(parsed.recipe), parsed.overrides)
        start_communication(settings.get("training"))  # before TrainingArguments count the processes
        run(build(Recipe, settings, parsed.recipe))
    except UserError as error:
        told = one_line(error)
        sys.stderr.write(f"error: {told if parsed.recipe in told else f'{parsed.recipe}: {told}'}\n")
        return 2
    except (OSError, MemoryError) as error:  # of the machine: disk full, folder removed, out of memory
        sys.stderr.write(f"error: {one_line(error)}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
