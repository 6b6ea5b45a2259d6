"""`training.teacher`: logits with all visual tokens teach the compressed model what it would have said.

Where a token predicts a label, the loss gets, beside the cross entropy,

    teacher_weight * T^2 * KL(softmax(teacher / T) || softmax(student / T)),    T = teacher_temperature

as in Hinton et al. (2015), with the mean over tokens of `training.loss`. The teacher is `self`, the trained model's own
weights with all visual tokens, without gradient and dropout, or another checkpoint, which stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from duet.checkpoints.files import resolve_folder
from duet.config import ConfigError
from duet.engine.attachment import attached, reads_labels
from duet.errors import UserError
from duet.loading import load_stock
from duet.method_table import find_method
from duet.train.answers import AnswerRows
from duet.train.heldout import all_tokens
from duet.train.ranks import total
from duet.train.sharding import kept_whole
from duet.train.start import compute_dtype, family_of

if TYPE_CHECKING:
    from duet.train.arguments import Recipe, TrainingArguments

#: The teacher that is the trained model itself.
SELF = "self"
#: Sizes of a configuration that decide what its placeholders and logits mean.
_ALIKE = (
    ("image_token_id",),
    ("text_config", "vocab_size"),
    ("vision_config", "image_size"),
    ("vision_config", "patch_size"),
    ("vision_config", "spatial_merge_size"),
)


def check_teacher(recipe: Recipe, folder: Path) -> None:
    """Check a recipe's teacher before a model is loaded.

    Args:
        recipe: of the run.
        folder: of the checkpoint that training starts from.

    Raises:
        UserError: no such checkpoint, another family, or a teacher that would teach nothing.
    """
    training = recipe.training
    if training.teacher is None:
        return
    if training.label_smoothing_factor:
        raise ConfigError("training.label_smoothing_factor has a loss of its own; training.teacher needs the model's")
    if training.n_gpu > 1:
        raise ConfigError("training.teacher needs one process per GPU: start with torchrun")
    if training.teacher == SELF:
        if not find_method(recipe.compression.method).stages:
            raise ConfigError(
                "training.teacher: self is the trained model with all visual tokens, and so is compression.method: "
                "none: there is nothing to teach; name a checkpoint, or a method"
            )
        return
    try:
        taught, teaching = family_of(folder), family_of(resolve_folder(training.teacher))
    except UserError as error:
        raise type(error)(f"training.teacher: {error}") from error
    if taught != teaching:
        raise ConfigError(f"training.teacher: {training.teacher} is a {teaching}, the trained model a {taught}")


def make_teacher(student: Any, recipe: Recipe, processor: Any) -> Teacher | None:
    """The teacher of a recipe, if it has one.

    Args:
        student: the trained model without wrappers, compression attached.
        recipe: of the run.
        processor: of the student.

    Raises:
        UserError: its checkpoint cannot be loaded, or reads other tokens than the student.
    """
    training = recipe.training
    if training.teacher is None:
        return None
    if training.teacher == SELF:
        return Teacher(student, training)
    with kept_whole(training):
        model, own = load_stock(
            training.teacher,
            dtype=compute_dtype(training, getattr(torch, recipe.model.dtype)),
            attn_implementation=recipe.model.attn_implementation,
            device=str(training.device),
        )
    for names in _ALIKE:
        here, there = (_entry(each.config, names) for each in (student, model))
        if here != there:
            raise UserError(
                f"training.teacher: {training.teacher} has {'.'.join(names)} {there}, the trained model {here}"
            )
    if own.tokenizer.get_vocab() != processor.tokenizer.get_vocab():
        raise UserError(f"training.teacher: {training.teacher} has another vocabulary than the trained model")
    return Teacher(student, training, model)


def _entry(config: Any, names: tuple[str, ...]) -> Any:
    for name in names:
        config = getattr(config, name, None)
    return config


class Teacher:
    """Adds the divergence from a teacher to the loss of a model.

    Args:
        student: the trained model without wrappers, compression attached; its loss function is replaced.
        training: of the recipe, with `teacher_weight` and `teacher_temperature`.
        model: another model, which is frozen; None: the student with all visual tokens.

    Attributes:
        summed, count: divergence in nats, and tokens, since the last `mean`.
    """

    def __init__(self, student: Any, training: TrainingArguments, model: Any = None) -> None:
        self.student, self.model = student, model
        self.weight, self.temperature = training.teacher_weight, training.teacher_temperature
        self.summed: Any = 0.0
        self.count = 0
        self._logits: Tensor | None = None
        self._rule = student.loss_function
        student.loss_function = self._loss
        if model is not None:
            model.requires_grad_(False).eval()
            AnswerRows(model)

    def teaches(self, inputs: dict[str, Any]) -> bool:
        """Whether the teacher can say anything else than the student about a batch, in this step.

        The model itself cannot if all tokens stay or there is no picture; so it is asked on all processes or on none.
        """
        if self.model is not None:
            return True
        return attached(self.student).compression.active and reads_labels(self.student, inputs)

    @contextmanager
    def about(self, model: nn.Module, inputs: dict[str, Any]) -> Iterator[None]:
        """Inside the block the loss of these inputs has the divergence in it.

        Args:
            model: the student as it is trained, with its wrappers.
            inputs: of its forward, with labels.
        """
        self._logits = self._answer(model, inputs) if self.teaches(inputs) else None
        try:
            yield
        finally:
            self._logits = None

    def _answer(self, model: nn.Module, inputs: dict[str, Any]) -> Tensor:
        """`[M, vocabulary]`, the teacher's logits at the M tokens that predict a label."""
        with torch.no_grad():
            if self.model is not None:
                return self.model(**inputs).logits[0]
            was = model.training
            model.eval()
            try:
                with all_tokens(self.student):
                    return model(**inputs).logits[0]
            finally:
                model.train(was)

    def _loss(self, logits: Tensor, labels: Any, vocab_size: int, **options: Any) -> Tensor:
        """The model's own loss function, and the divergence; takes `[1, M, vocabulary]`."""
        loss = self._rule(logits=logits, labels=labels, vocab_size=vocab_size, **options)
        if self._logits is None:
            return loss
        found = divergence(self._logits.to(logits.device), logits[0], self.temperature)
        self.summed, self.count = self.summed + found.detach().sum(), self.count + len(found)
        items = options.get("num_items_in_batch")
        share = found.sum() / (max(len(found), 1) if items is None else items)
        return loss + self.weight * self.temperature**2 * share

    def mean(self, device: Any) -> dict[str, float]:
        """`teacher_kl` for the log, nats per token since the last call; every process must call it."""
        summed, count = total([float(self.summed), self.count], device)
        self.summed, self.count = 0.0, 0
        return {"teacher_kl": round(summed / count, 6)} if count else {}


def divergence(teacher: Tensor, student: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(teacher || student) of logits `[M, vocabulary]`, `[M]` in nats, computed in float32.

    Raises:
        UserError: the two were asked about different tokens.
    """
    if teacher.shape != student.shape:
        raise UserError(
            f"training.teacher: {list(teacher.shape)} logits of the teacher for {list(student.shape)} of the trained "
            "model: a label stands at a visual token"
        )
    theirs, own = (torch.log_softmax(logits.float() / temperature, -1) for logits in (teacher, student))
    return (theirs.exp() * (theirs - own)).sum(-1)
