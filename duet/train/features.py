"""`training.cache_features`: a frozen tower encodes every picture once, whatever the number of epochs."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches
from transformers.models.qwen3_vl.modeling_qwen3_vl import BaseModelOutputWithDeepstackFeatures

from duet.backbones.clip import feature_layer
from duet.backbones.kept import Features, Memory, Shelf, media_keys, picture_keys
from duet.engine.attachment import attached, is_attached
from duet.engine.vision import tower_needs
from duet.errors import UserError
from duet.train.arguments import TrainingArguments

#: Names of the hashes of pictures and of videos in a batch.
KEYS = ("picture_keys", "clip_keys")
#: Family -> its towers, with the entry of `KEYS` of each call in a step, in order.
TOWERS = {
    "llava": (("vision_tower", 0),),
    "llava_next": (("vision_tower", 0),),
    "video_llava": (("image_tower", 0), ("video_tower", 1)),
    "qwen2_vl": (("visual", 0), ("visual", 1)),
    "qwen2_5_vl": (("visual", 0), ("visual", 1)),
    "qwen3_vl": (("visual", 0), ("visual", 1)),
}
#: Subfolder of `output_dir` for `cache_features: disk`; it is removed at the end of the run.
FOLDER = "features"
GIB = 1 << 30


class Keyed:
    """A collator that adds hashes of pixels, `[P, 2]`, to the batches of another one.

    Args:
        collate: makes the batches.
        config: the model's.

    One hash per picture (LLaVA-1.5), crop (LLaVA-NeXT), frame (Video-LLaVA), or picture or video (Qwen).
    """

    def __init__(self, collate: Callable[[Sequence[Any]], dict[str, Tensor]], config: Any) -> None:
        self.collate, self.config = collate, config

    def __call__(self, rows: Sequence[Any]) -> dict[str, Tensor]:
        """The batch of some rows, with its hashes."""
        batch = self.collate(rows)
        pictures = next((batch[name] for name in ("pixel_values", "pixel_values_images") if name in batch), None)
        clips, keys = batch.get("pixel_values_videos"), {}
        if pictures is not None:
            keys[KEYS[0]] = self._keys(batch, pictures, "image_grid_thw")
        if clips is not None:
            keys[KEYS[1]] = self._keys(batch, clips, "video_grid_thw")
        return {**batch, **keys}

    def _keys(self, batch: dict[str, Tensor], pixels: Tensor, grid: str) -> Tensor:
        if grid in batch:
            return media_keys(pixels, batch[grid])
        if pixels.ndim == 5 and self.config.model_type == "llava_next":
            counts = [self._crops(size) for size in batch["image_sizes"]] if pixels.shape[1] > 1 else [1] * len(pixels)
            return picture_keys(torch.cat([one[:count] for one, count in zip(pixels, counts, strict=True)]))
        return picture_keys(pixels.flatten(0, 1) if pixels.ndim == 5 else pixels)

    def _crops(self, size: Tensor) -> int:
        return image_size_to_num_patches(
            size.tolist(), self.config.image_grid_pinpoints, self.config.vision_config.image_size
        )


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
        self.calls = [(getattr(model.model, name), KEYS[at]) for name, at in TOWERS[model.config.model_type]]
        towers = list(dict.fromkeys(tower for tower, _ in self.calls))
        self.folder = Path(str(training.output_dir)) / FOLDER if training.cache_features == "disk" else None
        shelf: Shelf = Memory() if self.folder is None else Files(self.folder / fingerprint(towers, training))
        self.features = Features(towers, training.cache_features_gb * GIB / training.world_size, shelf)
        if isinstance(shelf, Files):
            self.features.nbytes = shelf.nbytes() // training.world_size  # of the run that this one continues

    @contextmanager
    def step(self, inputs: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The inputs of a step without the hashes; inside the block the tower runs only for new pictures."""
        inputs = dict(inputs)
        keys = {name: inputs.pop(name, None) for name in KEYS}
        calls = [(tower, keys[name]) for tower, name in self.calls if keys[name] is not None and len(keys[name])]
        with self.features.about(calls), ExitStack() as stack:
            if not is_attached(self.model):  # otherwise the engine reads the towers
                for tower in self.features.towers:
                    stack.callback(setattr, tower, "forward", tower.forward)
                    tower.forward = partial(self._packed if hasattr(tower, "merger") else self._clip, tower)
            yield inputs

    def _clip(self, tower: Any, pixel_values: Tensor, **options: Any) -> BaseModelOutputWithPooling:
        """The stock forward of a CLIP tower."""
        layer = feature_layer(self.model.config, {})

        def encode(places: list[int]) -> list[dict[str, Tensor]]:
            pixels = pixel_values if len(places) == len(pixel_values) else pixel_values[places]
            found = type(tower).forward(tower, pixels, **{**options, "output_hidden_states": True})
            return [{"hidden": one} for one in found.hidden_states[layer]]

        device = tower.embeddings.patch_embedding.weight.device
        rows = self.features.read(tower, f"stock{layer}", len(pixel_values), device, encode)
        states: list[Any] = [None] * (tower.config.num_hidden_layers + 1)
        states[layer] = torch.stack([row["hidden"] for row in rows])
        return BaseModelOutputWithPooling(hidden_states=tuple(states))

    def _packed(self, tower: Any, pixel_values: Tensor, grid_thw: Tensor, **options: Any) -> BaseModelOutputWithPooling:
        """The stock forward of Qwen's towers."""
        sizes = grid_thw.prod(-1).tolist()
        tokens = [size // tower.spatial_merge_size**2 for size in sizes]

        def encode(places: list[int]) -> list[dict[str, Tensor]]:
            parts = pixel_values.split(sizes)
            found = type(tower).forward(
                tower, torch.cat([parts[place] for place in places]), grid_thw=grid_thw[places], **options
            )
            own = [tokens[place] for place in places]
            levels = [found.pooler_output, *(getattr(found, "deepstack_features", None) or ())]
            split = zip(*(level.split(own) for level in levels), strict=True)
            return [{str(number): level for number, level in enumerate(each)} for each in split]

        device = next(tower.parameters()).device
        rows = self.features.read(tower, "stock", len(sizes), device, encode)
        first, *levels = (torch.cat([row[str(number)] for row in rows]) for number in range(len(rows[0])))
        if not levels:
            return BaseModelOutputWithPooling(pooler_output=first)
        return BaseModelOutputWithDeepstackFeatures(pooler_output=first, deepstack_features=levels)

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
    packed = kind.startswith("qwen")
    if kind not in TOWERS or not (packed or getattr(tower, "model_type", None) == "clip_vision_model"):
        raise UserError(
            f"{field} knows LLaVA and Video-LLaVA with CLIP towers and Qwen; this model is {kind}: remove it"
        )
    if not packed and not isinstance(model.config.vision_feature_layer, int):
        raise UserError(f"{field} reads one feature layer; this model has {model.config.vision_feature_layer}")
    modules = nn.ModuleList(dict.fromkeys(getattr(model.model, name) for name, _ in TOWERS[kind]))
    if any(value.requires_grad for value in modules.parameters()):
        whole = "[tower, projector]` (the projector is part of Qwen's tower)" if packed else "[tower]`"
        raise UserError(f"{field} needs a frozen tower: add `freeze: {whole} to the model section, or remove it")
    dropped = any(isinstance(each, nn.Dropout) and each.p for each in modules.modules())
    if dropped or getattr(model.config.vision_config, "attention_dropout", False):
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


def fingerprint(towers: Sequence[nn.Module], training: TrainingArguments) -> str:
    """A name of everything but the picture that the towers' output depends on."""
    digest = hashlib.blake2b(digest_size=8)
    mixed = (training.bf16, training.fp16, str(training.device.type), torch.__version__)
    digest.update(repr((mixed, [getattr(tower, "config", None) for tower in towers])).encode())
    for name, value in nn.ModuleList(towers).state_dict().items():
        digest.update(f"{name}{value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
