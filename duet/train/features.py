"""`training.cache_features`: a frozen tower encodes every picture once, whatever the number of epochs."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.modeling_outputs import BaseModelOutputWithPooling

from duet.backbones.clip import feature_layer
from duet.backbones.kept import Features, Memory, Shelf, picture_keys
from duet.engine.attach import attached
from duet.engine.vision import tower_needs
from duet.errors import UserError
from duet.train.arguments import TrainingArguments

#: Name of the pictures' hashes in a batch.
KEYS = "picture_keys"
#: Subfolder of `output_dir` for `cache_features: disk`; it is removed at the end of the run.
FOLDER = "features"
GIB = 1 << 30


class Keyed:
    """A collator that adds `picture_keys` `[P, 2]`, hashes of `pixel_values`, to the batches of another one."""

    def __init__(self, collate: Callable[[Sequence[Any]], dict[str, Tensor]]) -> None:
        self.collate = collate

    def __call__(self, rows: Sequence[Any]) -> dict[str, Tensor]:
        """The batch of some rows, with its hashes."""
        batch = self.collate(rows)
        pixels = batch.get("pixel_values")
        return batch if pixels is None else {**batch, KEYS: picture_keys(pixels)}


class Files:
    """Tensors in the files of a folder, which processes may share."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def nbytes(self) -> int:
        """Bytes of all files, with their headers."""
        return sum(path.stat().st_size for path in self.folder.glob("*.safetensors"))

    def get(self, name: str) -> dict[str, Tensor] | None:
        """See `duet.backbones.kept.Shelf`."""
        path = self.folder / f"{name}.safetensors"
        return load_file(path) if path.is_file() else None

    def put(self, name: str, parts: dict[str, Tensor]) -> None:
        """See `duet.backbones.kept.Shelf`."""
        part = self.folder / f"{name}.{os.getpid()}.part"
        save_file(parts, part)
        part.replace(self.folder / f"{name}.safetensors")  # whole or not at all, whoever else writes it


class StepFeatures:
    """The kept features of a run, for its trainer.

    Args:
        model: without peft's wrapper, the method attached, the trained parameters chosen.
        training: of the recipe, with `cache_features`.

    Raises:
        UserError: the tower's output for a picture would not be the same at every step.
    """

    def __init__(self, model: Any, training: TrainingArguments) -> None:
        check_features(model, training)
        self.model = model
        tower = model.model.vision_tower
        self.folder = Path(str(training.output_dir)) / FOLDER if training.cache_features == "disk" else None
        shelf: Shelf = Memory() if self.folder is None else Files(self.folder / fingerprint(tower, training))
        self.features = Features(tower, training.cache_features_gb * GIB / training.world_size, shelf)
        if isinstance(shelf, Files):
            self.features.nbytes = shelf.nbytes() // training.world_size  # of the run that this one continues

    @contextmanager
    def step(self, inputs: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The inputs of a step without the hashes; inside the block the tower runs only for new pictures."""
        inputs = dict(inputs)
        tower, keys = self.features.tower, inputs.pop(KEYS, None)
        with self.features.about(keys):
            stock = tower.forward
            tower.forward = self._stock  # for a model without compression; the engine reads the tower's layers
            try:
                yield inputs
            finally:
                tower.forward = stock

    def _stock(self, pixel_values: Tensor, **options: Any) -> BaseModelOutputWithPooling:
        tower: Any = self.features.tower
        layer = feature_layer(self.model.config, {})

        def encode(pixels: Tensor) -> dict[str, Tensor]:
            found = type(tower).forward(tower, pixels, **{**options, "output_hidden_states": True})
            return {"hidden": found.hidden_states[layer]}

        device = tower.embeddings.patch_embedding.weight.device
        hidden = self.features.read(f"stock{layer}", pixel_values, device, encode)["hidden"]
        states: list[Any] = [None] * (tower.config.num_hidden_layers + 1)
        states[layer] = hidden
        return BaseModelOutputWithPooling(hidden_states=tuple(states))

    def finish(self) -> None:
        """Remove the files of a run that went to its end."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)


def check_features(model: Any, training: TrainingArguments) -> None:
    """Check that kept features are those that the tower would compute.

    Raises:
        UserError: they are not, or it is not known.
    """
    field = "training.cache_features"
    kind, tower = model.config.model_type, getattr(model.config, "vision_config", None)
    if kind != "llava" or getattr(tower, "model_type", None) != "clip_vision_model":
        raise UserError(f"{field} knows LLaVA-1.5 with a CLIP tower; this model is {kind}: remove it")
    if not isinstance(model.config.vision_feature_layer, int):
        raise UserError(f"{field} reads one feature layer; this model has {model.config.vision_feature_layer}")
    modules: nn.Module = model.model.vision_tower
    if any(value.requires_grad for value in modules.parameters()):
        raise UserError(f"{field} needs a frozen tower: add `freeze: [tower]` to the model section, or remove it")
    dropped = any(isinstance(each, nn.Dropout) and each.p for each in modules.modules())
    if dropped or model.config.vision_config.attention_dropout:
        raise UserError(f"{field}: the tower has dropout, so its output is drawn anew every time: remove one of them")
    if is_deepspeed_zero3_enabled() or training.fsdp:
        raise UserError(f"{field}: ZeRO-3 and FSDP2 need the tower on all processes at every step: use ZeRO-2 or none")
    if training.n_gpu > 1:
        raise UserError(f"{field} needs one process per GPU: start with torchrun")
    try:
        needs = tower_needs(attached(model).compression)
    except ValueError:  # nothing is attached
        return
    if "attention_rows" in needs:
        raise UserError(f"{field}: this method reads single attention rows of the tower, which are not kept: remove it")


def fingerprint(tower: nn.Module, training: TrainingArguments) -> str:
    """A name of everything but the picture that a tower's output depends on."""
    digest = hashlib.blake2b(digest_size=8)
    mixed = (training.bf16, training.fp16, str(training.device.type), torch.__version__)
    digest.update(repr((mixed, getattr(tower, "config", None))).encode())
    for name, value in tower.state_dict().items():
        digest.update(f"{name}{value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
