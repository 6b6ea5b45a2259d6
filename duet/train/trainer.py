"""Hugging Face's Trainer with LLaVA's additions (projector rate, length grouping), for one process or many.

What it adds: the order of rows follows from seed and epoch; pictures for processes without any (`standins.py`); the
head at answers only (`answers.py`); a check that all is finite (`finite.py`); checkpoints that survive a kill
(`checkpoints.py`); FSDP2 on CPUs and stock names under ZeRO-3 (`sharding.py`); accounts (`tally.py`).
"""

from __future__ import annotations

import re
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Sampler
from transformers import AutoModelForImageTextToText, Trainer
from transformers.integrations import is_deepspeed_zero3_enabled

from duet.budget import Backbone, Budget
from duet.data.encode import IGNORED
from duet.engine.attachment import attached
from duet.engine.compat import forget_renamings
from duet.errors import UserError
from duet.files import one_line
from duet.train.answers import AnswerRows
from duet.train.arguments import TrainingArguments
from duet.train.checkpoints import (
    Layout,
    check_resume,
    forget_after,
    keep_newest,
    mark_begun,
    mark_complete,
    newest_complete,
    remove_incomplete,
    step_of,
)
from duet.train.features import StepFeatures
from duet.train.finite import FiniteCheck
from duet.train.groups import parameter_groups
from duet.train.ranks import meet, told
from duet.train.sampler import RowOrder, signed_length
from duet.train.saving import resume_beside, save_beside, setting_of
from duet.train.sharding import name_units, shard_on_cpus, whole_state
from duet.train.standins import StandIns
from duet.train.tally import Passes, Tally
from duet.train.teacher import Teacher

LOG = "metrics.jsonl"

#: Norms that transformers knows neither by their class nor by their name: `norm1`, `norm2`, `ln_q` (Qwen2.5-VL).
MISSED_NORM = re.compile(r"\.(norm\d+|ln_q)\.weight$")


class DuetTrainer(Trainer):
    """Trains any Hugging Face vision-language model, compressed or not: compression is attached before.

    Args:
        stand_ins: for training in several processes on rows with and without pictures.
        features: keeps the tower's output of pictures, for batches with their hashes.
        teacher: adds what a model with all visual tokens says to the loss.

    Attributes:
        tally: counts and times of this session.
    """

    args: TrainingArguments
    model: Any  # any model that transformers loads; the base class also allows None

    def __init__(
        self,
        *args: Any,
        stand_ins: StandIns | None = None,
        features: StepFeatures | None = None,
        teacher: Teacher | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.stand_ins = stand_ins
        self.features = features
        self.teacher = teacher
        self.order: RowOrder | None = None
        self.bare = bare(self.model)
        AnswerRows(self.bare)
        if self.args.loss == "original":
            self.model_accepts_loss_kwargs = False  # the mean of each micro-batch, then the mean of means
        checkpointing = bool(self.args.activation_checkpointing)
        self.tally = Tally(_sizes(self.bare), Passes.of(self.model, checkpointing), _placeholders(self.bare.config))
        other = None if teacher is None else teacher.model
        self._teacher_sizes = self.tally.backbone if other is None else _sizes(other)
        self.finite = FiniteCheck(
            self.model, self.args.process_index, self.args.world_size, self.args.device, self._rows_of
        )
        self._added = [0]
        self._micro = 0

    def create_accelerator_and_postprocess(self) -> None:
        """Also shards over processes without GPUs."""
        super().create_accelerator_and_postprocess()
        if shard_on_cpus(self.accelerator, self.args.fsdp_plugin_args):
            self.is_fsdp_enabled = True

    # ---- steps ----

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list, Any]:
        """The micro-batches of one step, with stand-ins where only other processes have pictures or videos."""
        with self.tally.timed("waiting"):
            batches, items = super().get_batch_samples(*args, **kwargs)
        rows = [len(batch["input_ids"]) for batch in batches]
        if self.stand_ins is not None and self.args.world_size > 1:
            batches = self.stand_ins.even_out(batches, self.args.device)
        self._added = [len(batch["input_ids"]) - count for batch, count in zip(batches, rows, strict=True)]
        self._micro = 0
        return batches, items

    def training_step(self, model: nn.Module, inputs: dict[str, Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """One forward and backward pass."""
        teacher = self._teacher_sizes if self.teacher is not None and self.teacher.teaches(inputs) else None
        self.tally.add(inputs, self._budget(), self._added[self._micro], teacher)
        if self.features is None:
            loss = super().training_step(model, inputs, *args, **kwargs)
        else:
            counts = self.features.features
            kept, encoded = counts.hits, counts.misses
            with self.features.step(inputs) as given:
                loss = super().training_step(model, given, *args, **kwargs)
            self.tally.spare(counts.hits - kept, counts.misses - encoded)
        self._micro += 1
        return loss

    def compute_loss(self, model: nn.Module, inputs: dict[str, Tensor], *args: Any, **kwargs: Any) -> Any:
        """The loss; in training it has to be finite, and is 0 for rows that have all lost their labels.

        Their mean would be 0 / 0. `data.tokenization: original` loses labels as the original does.
        """
        learned = (inputs["labels"][:, 1:] != IGNORED).any()
        with self.teacher.about(model, inputs) if self.teacher and model.training else nullcontext():
            found = super().compute_loss(model, inputs, *args, **kwargs)
        if model.training and isinstance(found, Tensor) and not learned:
            found = torch.nan_to_num(found)
        if model.training and not self.args.fp16:
            loss = found[0] if isinstance(found, tuple) else found
            self.finite.loss(loss, self.state.global_step + 1, self._micro)
        return found

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        self._check_gradients()
        return super()._clip_grad_norm(model)

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        if grad_norm is None:
            self._check_gradients()
        return super()._get_grad_norm(model, grad_norm)

    def _check_gradients(self) -> None:
        if not self.is_deepspeed_enabled and not self.args.fp16:
            self.finite.gradients(self.state.global_step + 1)

    def _prepare_for_training(self, *args: Any, **kwargs: Any) -> Any:
        if self.is_fsdp_enabled:
            name_units(self.accelerator.state.fsdp_plugin, self.bare)
        prepared = super()._prepare_for_training(*args, **kwargs)
        if self.is_deepspeed_enabled and not self.args.fp16:
            # accelerate runs backward and step of DeepSpeed in one call
            self.finite.watch()
            engine: Any = self.model_wrapped
            engine.step = partial(self._checked_step, engine.step)
        return prepared

    def _checked_step(self, step: Any, *args: Any, **kwargs: Any) -> Any:
        self.finite.watched(self.state.global_step + 1)
        return step(*args, **kwargs)

    def _budget(self) -> Budget:
        """The budget of this step."""
        try:
            return attached(self.bare).compression.budget
        except ValueError:
            return Budget()

    # ---- optimizer ----

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """AdamW; parts have their own rates (`training.rates`, `mm_projector_lr`)."""
        rates = self.args.own_rates
        if not rates or self.optimizer is not None:
            return super().create_optimizer(*args, **kwargs)
        decayed = set(self.get_decay_parameter_names(self.model))
        cls, options = self.get_optimizer_cls_and_kwargs(self.args, self.model)
        self.optimizer = cls(parameter_groups(self.model, rates, self.args.weight_decay, decayed), **options)
        return self.optimizer

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Names of parameters with weight decay: transformers' own, but for the norms that it misses."""
        return [name for name in super().get_decay_parameter_names(model) if not MISSED_NORM.search(name)]

    # ---- order of rows ----

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int] | None:
        dataset: Any = train_dataset if train_dataset is not None else self.train_dataset
        if str(getattr(self.args.train_sampling_strategy, "value", self.args.train_sampling_strategy)) != "random":
            return super()._get_train_sampler(train_dataset)
        shares = self.args.world_size * self.args.gradient_accumulation_steps
        lengths = [signed_length(row) for row in dataset.rows] if self.args.group_by_modality_length else None
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        self.order = RowOrder(len(dataset), seed, lengths, self.args.train_batch_size, shares)
        return self.order

    def _run_epoch(self, model: Any, epoch: int, *args: Any, **kwargs: Any) -> None:
        if self.state.global_step >= self.state.max_steps:  # a run that has ended, started again
            self.control.should_training_stop = True
            return
        if self.order is not None:
            self.order.set_epoch(epoch)  # accelerate forgets samplers behind its own
        super()._run_epoch(model, epoch, *args, **kwargs)

    def _rows_of(self, rank: int, micro: int) -> list[str]:
        """Names of the rows of a process' micro-batch in this step."""
        rows = getattr(self.train_dataset, "rows", None)
        if self.order is None:
            return ["(this order is not known)"]
        size = self.order.batch_size * self.order.shares
        steps = max(len(self.order) // size + bool(len(self.order) % size), 1)
        epoch, step = divmod(self.state.global_step, steps)
        found = self.order.rows_of_step(epoch, step)[micro * self.args.world_size + rank]
        return [str(row) if rows is None else f"{row} (id {rows[row].name!r})" for row in found]

    # ---- checkpoints ----

    def layout(self) -> Layout:
        """How this run is spread out."""
        args = self.args
        rows = args.train_batch_size * args.world_size * args.gradient_accumulation_steps
        sharding = "none"
        if self.is_deepspeed_enabled:
            sharding = f"zero-{self.accelerator.state.deepspeed_plugin.zero_stage}"
        elif self.is_fsdp_enabled:
            sharding = "fsdp"
        found = setting_of(self.bare)
        method = "none" if found is None else found.method
        family = self.bare.config.model_type
        return Layout(sharding, args.world_size, rows, args.seed, args.group_by_modality_length, family, method)

    def continue_from(self) -> str | None:
        """The checkpoint in `output_dir` to continue from, if there is one; what a kill has left is removed.

        Raises:
            UserError: this run may not continue it.
        """
        output = Path(str(self.args.output_dir))
        # one process looks: views of a network's folder differ for some seconds
        last = told(newest_complete(output) if self.args.resume and self.is_world_process_zero() else None)
        if last is not None:
            check_resume(last, self.layout())
        meet()  # nothing is removed while others look at it, and nobody writes before it is gone
        if self.is_world_process_zero() and self.args.resume:
            remove_incomplete(output)
            forget_after(output / LOG, -1 if last is None else step_of(last))
        meet()
        return None if last is None else str(last)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        with self.tally.timed("saving"):
            step = self.state.global_step
            folder = Path(str(self.args.output_dir)) / f"checkpoint-{step}"
            if self.args.should_save:
                mark_begun(folder)
            limit, self.args.save_total_limit = self.args.save_total_limit, None  # older ones go when all have written
            try:
                super()._save_checkpoint(model, trial)
            finally:
                self.args.save_total_limit = limit
            meet()
            if self.args.should_save:
                mark_complete(folder, step, self.layout())
                keep_newest(folder.parent, limit)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save whole weights under stock names, also those that FSDP2 has sharded."""
        sharded = self.is_fsdp_enabled and "SHARDED" in str(self.accelerator.state.fsdp_plugin.state_dict_type)
        if not sharded or _internal_call:
            super().save_model(output_dir, _internal_call)
            return
        self._save(output_dir or str(self.args.output_dir), state_dict=whole_state(self.model))

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        """The stock files under the stock names, and what `duet.train.saving` puts beside them.

        While it loads a model for ZeRO-3, transformers 5.23 notes every renaming that it knows, not only those that it
        used, and would undo them all: `language_model.model.model...`. Without notes it undoes those of the class. A
        head that is the embedding table is not saved twice, though DeepSpeed and FSDP2 hand out two copies.
        """
        if state_dict is not None:
            tied = getattr(self.bare, "all_tied_weights_keys", {})
            state_dict = {name: value for name, value in state_dict.items() if tied.get(name) not in state_dict}
        if is_deepspeed_zero3_enabled():
            forget_renamings(self.bare)
        super()._save(output_dir, state_dict)
        if self.args.should_save:
            save_beside(self.accelerator.unwrap_model(self.model), output_dir or str(self.args.output_dir), state_dict)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Resume the weights through `from_pretrained`.

        Vision-language checkpoints are saved under other names than the model's parameters have; the Trainer's own
        loader does not translate them (transformers 5.23), warns, and continues with the initial weights.
        """
        if self.is_deepspeed_enabled or self.is_fsdp_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        target = model if model is not None else self.model
        if hasattr(target, "peft_config"):
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            resume_beside(target, resume_from_checkpoint)
            return
        dtype = next(target.parameters()).dtype
        saved = AutoModelForImageTextToText.from_pretrained(
            resume_from_checkpoint, dtype=dtype, trust_remote_code=False
        )
        try:
            target.load_state_dict(saved.state_dict())
        except RuntimeError as error:
            raise UserError(
                f"{resume_from_checkpoint} is of another model ({one_line(error)[:200]}): set model.model_name_or_path "
                "as before, or another output_dir"
            ) from error

    # ---- logging ----

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, after the processes have added up their counts."""
        self.tally.share(self.args.device)
        taught = {} if self.teacher is None else self.teacher.mean(self.args.device)
        super().log({**logs, **taught}, start_time)


def bare(model: Any) -> Any:
    """The model without peft's wrapper."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _placeholders(config: Any) -> list[int]:
    found = [getattr(config, f"{kind}_token_id", None) for kind in ("image", "video")]
    return [each for each in found if each is not None]


def _sizes(model: Any) -> Backbone | None:
    try:
        return Backbone.from_config(model.config)
    except UserError:
        return None
