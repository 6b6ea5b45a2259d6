"""Runs a training recipe.

    duet train configs/train/mini_finetune.yaml training.max_steps=100 data.image_folder=pictures
    torchrun --nproc_per_node 8 -m duet.train.run RECIPE.yaml training.deepspeed=configs/deepspeed/zero2.json

Writes to `training.output_dir`: the model as a stock Hugging Face folder with its processor, `recipe.yaml` (the recipe
with its overrides), `metrics.jsonl`, and checkpoints from which the same command continues after an interruption.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from transformers import set_seed

from duet.budget import Backbone
from duet.budget.resolve import resolve_budget
from duet.config import ConfigError, build, override, read_mapping, save_config, to_dict
from duet.data.collate import collate
from duet.data.dataset import ConversationDataset
from duet.data.load import load_rows, missing_files, original_parser
from duet.data.rows import Row, parse_row
from duet.engine.call import Compression
from duet.errors import UserError
from duet.families import find_asking
from duet.files import one_line
from duet.method_table import find_method
from duet.registry import compress
from duet.text.placeholders import VIDEO
from duet.train.arguments import DataArguments, Recipe, read_elsewhere
from duet.train.checks import check_compression, check_recipe, check_space, named
from duet.train.elastic import Between, Drawn, ElasticBudget, Shaped
from duet.train.features import Keyed, StepFeatures
from duet.train.flags import assignments, split_words, translate
from duet.train.freeze import freeze, learned_table
from duet.train.ranks import start_communication
from duet.train.sharding import kept_whole
from duet.train.standins import StandIns, shortest_example
from duet.train.start import adapt, family_of, load_start, make_start
from duet.train.teacher import make_teacher
from duet.train.trainer import DuetTrainer, bare
from duet.train.watching import evaluate, watch

logger = logging.getLogger(__name__)

#: Exit code after a signal and a last checkpoint, as shells know it from SIGTERM.
STOPPED = 143


def run(recipe: Recipe) -> bool:
    """Train by a recipe, or continue an interrupted run of it.

    Returns:
        Whether it went to its end; a signal may have stopped it after a last checkpoint.

    Raises:
        UserError: something unusable in the recipe, its data or its checkpoint; if possible, before the model is
            loaded.
    """
    folder = make_start(check_recipe(recipe), recipe)
    data = recipe.data
    with named("data.data_path and image_folder"):
        rows = read_data(recipe, folder)
    held_out = None
    if data.eval_data_path:
        with named("data.eval_data_path and eval_image_folder"):
            check = missing_files(_eval_folder(data), data.video_folder)
            held_out = load_rows(data.eval_data_path, bad_rows=data.bad_rows, check=check)
    output = Path(str(recipe.training.output_dir))
    set_seed(recipe.training.seed)
    model, processor = load_start(recipe, folder)
    model = adapt(model, recipe)
    freeze(model, recipe.model.freeze, recipe.model.tune_mm_mlp_adapter, recipe.model.train)
    check_space(model, recipe.training)
    if recipe.training.process_index == 0:
        logger.info("\n%s", learned_table(model, recipe.training.own_rates, recipe.training.learning_rate))
    elastic = attach_compression(model, recipe, processor)
    dataset = conversations(recipe, model, processor, rows)
    collator: Callable[[Sequence[Any]], dict[str, Any]] = partial(
        collate, pad_token_id=processor.tokenizer.pad_token_id, side="right"
    )
    features = None
    if recipe.training.cache_features is not None:
        features = StepFeatures(bare(model), recipe.training)
        collator = Keyed(collator, bare(model).config)
    trainer = DuetTrainer(
        model=model,
        args=recipe.training,
        train_dataset=dataset,
        data_collator=collator,
        processing_class=processor,
        stand_ins=StandIns(partial(shortest_example, dataset), collator, processor.tokenizer.pad_token_id),
        features=features,
        teacher=make_teacher(bare(model), recipe, processor),
    )
    if elastic is not None:
        trainer.add_callback(elastic)  # before the held-out answers, which run under its last choice
    stopping = watch(trainer, recipe)
    if held_out is not None or data.eval_benchmarks:
        asked = None if held_out is None else conversations(recipe, model, processor, held_out, held_out=True)
        evaluate(trainer, recipe, processor, asked)
    if trainer.is_world_process_zero():
        save_config(recipe, output / "recipe.yaml")
    trainer.train(resume_from_checkpoint=trainer.continue_from())
    if stopping.stopped:
        return False
    trainer.save_model(str(output))
    if features is not None and trainer.is_world_process_zero():
        features.finish()
    return True


def attach_compression(model: Any, recipe: Recipe, processor: Any) -> ElasticBudget | None:
    """Attach the recipe's method; the budgets of the run are noted in what `save_pretrained` writes.

    Returns:
        The callback that draws a budget for every step; None if the recipe has one budget only.
    """
    choices = check_compression(recipe.compression)
    if choices is None:
        return None
    chosen = recipe.compression

    def make(budget: Drawn) -> tuple[Any, Compression, Any]:
        words, more = processor.tokenizer, chosen.switches
        if isinstance(budget, Shaped):
            schedule, sizes = find_method(chosen.method).schedule, Backbone.from_config(bare(model).config)
            base = more.get("ratio_base")
            budget = resolve_budget(
                budget.average, schedule, sizes, method=chosen.method, ratio_base=base, shape=budget.shape
            )
        with kept_whole(recipe.training):
            return compress(model, chosen.method, budget, tokenizer=words, companion=chosen.companion, **more)

    elastic = ElasticBudget(model, choices, make, recipe.training.seed, chosen.weights)
    return elastic if len(choices) > 1 or isinstance(choices[0], Between) else None


def read_data(recipe: Recipe, folder: Path) -> list[Row]:
    """The recipe's rows, all of their files checked.

    Args:
        recipe: whose data.
        folder: of the checkpoint; the original's tokenization depends on its family.
    """
    data = recipe.data
    parse: Callable[[Any, str], Row] = parse_row
    if data.tokenization == "original":
        parse = original_parser(family_of(folder), data.version)
    check = missing_files(data.image_folder, data.video_folder)
    return load_rows(data.data_path, recipe.training.seed, data.bad_rows, parse, check)


def conversations(
    recipe: Recipe, model: Any, processor: Any, rows: list[Row], held_out: bool = False
) -> ConversationDataset:
    """The dataset of a conversation file's rows under the recipe's template and picture options.

    Args:
        recipe, model, processor: of the run.
        rows: of the training file, or of the held-out one.
        held_out: which of the two.

    Raises:
        ConfigError: frames per second for a family without videos.
    """
    data, asking = recipe.data, find_asking(model, processor)
    if data.fps is not None and VIDEO not in asking.marks:
        raise ConfigError(f"data.fps is {data.fps:g}, but this model takes pictures only, no videos; leave it out")
    return ConversationDataset(
        rows,
        asking,
        _eval_folder(data) if held_out else data.image_folder,
        data.version,
        data.image_aspect_ratio == "pad",
        recipe.training.model_max_length,
        data.video_folder,
        "right" if held_out else data.tokenization,
        data.frames,
    )


def _eval_folder(data: DataArguments) -> str:
    return data.image_folder if data.eval_image_folder is None else data.eval_image_folder


def read_recipe(words: Sequence[str]) -> tuple[Recipe, bool]:
    """The recipe of a command line, and whether it is only printed.

    Args:
        words: a file, `section.key=value`, and flags of the originals (`duet.train.flags`), which win in this order.

    Raises:
        ConfigError: an unusable file, entry or flag; the message names the recipe.
    """
    given = split_words(words)
    if given.recipe is None and not given.flags:
        raise ConfigError("name a recipe (configs/train/*.yaml), or give the originals' flags; duet train --help")
    source = given.recipe or "the command line"
    settings = {} if given.recipe is None else read_mapping(given.recipe)
    for section, entries in assignments(translate(given.flags, alone=given.recipe is None)).items():
        settings[section] = {**(settings.get(section) or {}), **entries}
    settings = override(settings, given.overrides)
    if given.dry:
        return read_elsewhere(settings, source), True
    start_communication(settings.get("training"))  # before TrainingArguments count the processes
    return build(Recipe, settings, source), False


def train(words: Sequence[str], show: Callable[[str], Any] = print) -> int:
    """Train by a command line; returns the exit code.

    Args:
        words: see `read_recipe`.
        show: gets the whole recipe, if it is only printed.

    Raises:
        UserError: see `read_recipe` and `run`; the message names the recipe.
    """
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    recipe, dry = read_recipe(words)
    source = split_words(words).recipe or "the command line"
    try:
        if dry:
            check_compression(recipe.compression)
            show(yaml.safe_dump(to_dict(recipe), sort_keys=False).rstrip())
            return 0
        finished = run(recipe)
    except UserError as error:
        raise error if source in str(error) else type(error)(f"{source}: {error}") from error
    return 0 if finished else STOPPED


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line of this module: a recipe, overrides and flags; returns the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words and words[0] in ("-h", "--help"):
        sys.stdout.write(f"{__doc__}\n")
        return 0
    try:
        return train(words)
    except (UserError, OSError, MemoryError) as error:  # also of the machine: disk full, out of memory
        sys.stderr.write(f"error: {one_line(error)}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main())
