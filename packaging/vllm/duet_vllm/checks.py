"""Settings of vLLM that stage 1 does not go with, refused when the model is built."""

from __future__ import annotations

from typing import Any

from duet.errors import UserError


def check_settings(vllm_config: Any) -> None:
    """Refuse a split or compiled tower, given embeddings, and vLLM's own pruning.

    Args:
        vllm_config: `vllm.config.VllmConfig`.

    Raises:
        UserError: names the setting and says what to do.
    """
    settings = vllm_config.model_config.multimodal_config
    ranks = vllm_config.parallel_config.tensor_parallel_size
    if ranks > 1 and settings.mm_encoder_tp_mode != "data":
        raise UserError(
            f"--tensor-parallel-size {ranks} splits the vision tower's heads, and a score needs all of them: add "
            "--mm-encoder-tp-mode data, which keeps the tower whole on every rank"
        )
    if settings.enable_mm_embeds:
        raise UserError("--enable-mm-embeds: given embeddings pass stage 1 by; send pictures, or serve the stock model")
    if settings.video_pruning_rate:
        raise UserError("--video-pruning-rate prunes on its own: use either it or DUET_METHOD")
    if vllm_config.compilation_config.compile_mm_encoder:
        raise UserError("compile_mm_encoder hides the tower's layers from stage 1; leave it off")
