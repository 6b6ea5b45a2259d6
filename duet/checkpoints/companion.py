"""CLIP's joint space of pictures and words: the text tower and the two projections missing from LLaVA checkpoints.

Methods that compare patches with the question in that space (CDPruner) need them, from the CLIP checkpoint that the
model's tower comes from. They are loaded only when such a method is attached.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from duet.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

#: The tower of LLaVA-1.5 and LLaVA-NeXT, and its width, picture size and patch size.
DEFAULT, DEFAULT_SHAPE = "openai/clip-vit-large-patch14-336", (1024, 336, 14)


@dataclass(frozen=True)
class ClipCompanion:
    """See the module docstring.

    Attributes:
        clip: `CLIPModel`; its vision transformer, a copy of the model's, is not used except for the last norm.
        tokenizer: the text tower's.
    """

    clip: Any
    tokenizer: Any

    @torch.no_grad()
    def image_embeds(self, features: Tensor) -> Tensor:
        """Apply CLIP's last norm and visual projection to patches `[B, N, D]`, giving `[B, N, E]`."""
        norm, projection = self.clip.vision_model.post_layernorm, self.clip.visual_projection
        self.clip.to(features.device, features.dtype)
        return projection(norm(features))

    @torch.no_grad()
    def text_embeds(self, question: str) -> Tensor:
        """Embeddings of the question in windows of the text tower's length, `[S, E]`; one empty window for no text."""
        config = self.clip.config.text_config
        body = self.tokenizer(question, add_special_tokens=False)["input_ids"]
        room = config.max_position_embeddings - 2
        windows = [body[start : start + room] for start in range(0, len(body), room)] or [[]]
        framed = [[self.tokenizer.bos_token_id, *window, self.tokenizer.eos_token_id] for window in windows]
        found = []
        for ids in framed:
            batch = torch.tensor([ids], device=self.clip.device)
            pooled = self.clip.text_model(input_ids=batch).pooler_output
            found.append(self.clip.text_projection(pooled)[0])
        return torch.stack(found)


def load_companion(path: str | None, tower: Any) -> ClipCompanion:
    """Load the CLIP checkpoint that a model's tower comes from.

    Args:
        path: folder or hub id; None for the default of towers with LLaVA's shape.
        tower: config of the model's vision tower.

    Raises:
        UserError: there is no CLIP checkpoint, its width differs, or none is named for a tower of unusual shape: with
            another tower's joint space, patches would be ranked by noise.
    """
    from transformers import AutoConfig, AutoTokenizer, CLIPModel

    if path is None:
        if (tower.hidden_size, tower.image_size, tower.patch_size) != DEFAULT_SHAPE:
            raise UserError(
                "this method needs CLIP's text tower, and this model's tower is not the usual one: name the CLIP "
                "checkpoint that it comes from (companion=..., --companion PATH)"
            )
        path = DEFAULT
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
        if config.model_type != "clip":
            raise UserError(
                f"{path} is a {config.model_type} checkpoint; the companion of a CLIP tower is a CLIP model"
            )
        if config.vision_config.hidden_size != tower.hidden_size:
            raise UserError(
                f"{path} has a tower of width {config.vision_config.hidden_size}, the model's is {tower.hidden_size}: "
                "give the CLIP checkpoint that the tower comes from"
            )
        clip, tokenizer = (
            CLIPModel.from_pretrained(path).eval(),
            AutoTokenizer.from_pretrained(path, trust_remote_code=False),
        )
    except UserError:
        raise
    except (OSError, ValueError) as error:
        raise UserError(
            f"this method needs CLIP's text tower, and {path} cannot be loaded ({str(error).splitlines()[0]}): name "
            "the checkpoint that the model's tower comes from (companion=..., --companion PATH)"
        ) from error
    return ClipCompanion(clip, tokenizer)
