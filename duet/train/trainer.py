"""Hugging Face's Trainer with LLaVA's two additions (projector learning rate, length grouping) and running totals."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Sampler
from transformers import AutoModelForImageTextToText, Trainer

from duet.data.dataset import ConversationDataset
from duet.train.arguments import TrainingArguments
from duet.train.groups import parameter_groups
from duet.train.sampler import ModalityLengthSampler
from duet.train.saving import resume_beside, save_beside


class DuetTrainer(Trainer):
    """Trains any Hugging Face vision-language model, compressed or not: compression is attached before.

    Args:
        visual_share: share of a picture's tokens that the decoder layers see on average (1 without compression).
    """

    args: TrainingArguments
    model: Any  # any model that transformers loads; the base class also allows None

    def __init__(self, *args: Any, visual_share: float = 1.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.visual_share = visual_share
        self.totals = {"tokens": 0.0, "visual_tokens": 0.0, "pictures": 0.0, "seconds": 0.0}

    def training_step(self, model: nn.Module, inputs: dict[str, Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """One forward and backward pass; counts tokens and time."""
        image_id = getattr(self.model.config, "image_token_id", None)
        started = time.perf_counter()
        loss = super().training_step(model, inputs, *args, **kwargs)
        if loss.is_cuda:
            torch.cuda.synchronize(loss.device)
        self.totals["seconds"] += time.perf_counter() - started
        processes = self.args.world_size  # assumes that the others' batches are like this one's
        self.totals["tokens"] += float(inputs["attention_mask"].sum()) * processes
        self.totals["pictures"] += len(inputs.get("pixel_values", ())) * processes
        if image_id is not None:
            placeholders = float((inputs["input_ids"] == image_id).sum())
            self.totals["visual_tokens"] += placeholders * self.visual_share * processes
        return loss

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """AdamW; parts have their own rates (`training.rates`, `mm_projector_lr`)."""
        rates = self.args.own_rates
        if not rates or self.optimizer is not None:
            return super().create_optimizer(*args, **kwargs)
        decayed = set(self.get_decay_parameter_names(self.model))
        cls, options = self.get_optimizer_cls_and_kwargs(self.args, self.model)
        self.optimizer = cls(parameter_groups(self.model, rates, self.args.weight_decay, decayed), **options)
        return self.optimizer

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        """The stock files, and what `duet.train.saving` puts beside them."""
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
        target.load_state_dict(saved.state_dict())

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int] | None:
        dataset = train_dataset if train_dataset is not None else self.train_dataset
        if not self.args.group_by_modality_length or not isinstance(dataset, ConversationDataset):
            return super()._get_train_sampler(train_dataset)
        size = self.args.train_batch_size * self.args.world_size
        lengths = [row.characters for row in dataset.rows]
        return ModalityLengthSampler(lengths, [bool(row.images) for row in dataset.rows], size, self.args.seed)
