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
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, set_seed
from transformers.trainer_utils import get_last_checkpoint

import duet
from duet.budget import Backbone, Budget
from duet.config import ConfigError, build, load_config, save_config
from duet.data.dataset import Collator, ConversationDataset
from duet.data.rows import read_rows
from duet.engine.attach import attached
from duet.errors import UserError
from duet.train.accuracy import ExactAnswers
from duet.train.arguments import DataArguments, Recipe
from duet.train.callbacks import MetricsFile
from duet.train.freeze import freeze
from duet.train.trainer import DuetTrainer
from llava.prompts import TEMPLATES

logger = logging.getLogger(__name__)


def run(recipe: Recipe) -> None:
    """Train as the recipe says, or continue where an earlier run of it stopped."""
    output = Path(recipe.training.output_dir or "")
    set_seed(recipe.training.seed)
    processor = AutoProcessor.from_pretrained(recipe.model.model_name_or_path, backend="pil")
    model = AutoModelForImageTextToText.from_pretrained(
        recipe.model.model_name_or_path,
        dtype=getattr(torch, recipe.model.dtype),
        attn_implementation=recipe.model.attn_implementation,
    )
    learned = freeze(model, recipe.model.freeze, recipe.model.tune_mm_mlp_adapter)
    logger.info("%d of %d parameters learn", learned, model.num_parameters())
    share = attach_compression(model, recipe, processor)
    dataset = conversations(recipe, processor, recipe.data.data_path, recipe.data.image_folder)
    trainer = DuetTrainer(
        model=model,
        args=recipe.training,
        train_dataset=dataset,
        data_collator=Collator(processor.tokenizer.pad_token_id),
        processing_class=processor,
        visual_share=share,
    )
    trainer.add_callback(MetricsFile(output / "metrics.jsonl", lambda: trainer.totals))
    if recipe.data.eval_data_path:
        trainer.add_callback(held_out_accuracy(recipe, processor, trainer))
    if trainer.is_world_process_zero():
        save_config(recipe, output / "recipe.yaml")
    last = get_last_checkpoint(str(output)) if recipe.training.resume and output.is_dir() else None
    trainer.train(resume_from_checkpoint=last)
    trainer.save_model(str(output))


def attach_compression(model: Any, recipe: Recipe, processor: Any) -> float:
    """Attach the recipe's method; returns the share of visual tokens that the layers see on average."""
    method, budget = recipe.compression.method, recipe.compression.budget
    if method == "none":
        return 1.0
    chosen = budget if isinstance(budget, str) else build(Budget, budget or {}, "compression.budget")
    duet.attach(model, method=method, budget=chosen, tokenizer=processor.tokenizer)
    backbone = Backbone.from_config(model.config)
    return attached(model).compression.budget.average(backbone) / backbone.full


def conversations(recipe: Recipe, processor: Any, path: Any, folder: str) -> ConversationDataset:
    """The dataset of a conversation file under the recipe's template and picture options."""
    data: DataArguments = recipe.data
    if data.version not in TEMPLATES:
        raise ConfigError(f"data.version: unknown template {data.version!r}; known: {', '.join(TEMPLATES)}")
    if data.image_aspect_ratio not in ("pad", "square"):
        raise ConfigError(f"data.image_aspect_ratio: {data.image_aspect_ratio!r} is neither 'pad' nor 'square'")
    pad = data.image_aspect_ratio == "pad"
    limit = recipe.training.model_max_length
    return ConversationDataset(read_rows(path), processor, TEMPLATES[data.version], folder, pad, limit)


def held_out_accuracy(recipe: Recipe, processor: Any, trainer: DuetTrainer) -> ExactAnswers:
    """The accuracy callback of the recipe's held-out conversation file."""
    folder = recipe.data.eval_image_folder
    folder = recipe.data.image_folder if folder is None else folder
    dataset = conversations(recipe, processor, recipe.data.eval_data_path, folder)
    size = recipe.training.per_device_eval_batch_size
    return ExactAnswers(dataset, recipe.data.eval_every, size, trainer.log)


def main(arguments: list[str] | None = None) -> int:
    """Command line: a recipe and overrides; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="YAML file with the sections model, data, compression, training")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    parsed = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    try:
        run(load_config(Recipe, parsed.recipe, parsed.overrides))
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
