"""Combinations that a shortened prompt does not support: refused with advice, never computed wrongly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from transformers import DynamicCache

from duet.engine.compat import attention_backend, checkpoints_reentrantly, is_partitioned, is_replica, on_one_device
from duet.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from duet.engine.call import Call, Compression


def check_prompt(body: Any, inputs: dict[str, Any]) -> None:
    """Check the arguments of a prompt with pictures.

    Args:
        body: the module without the head.
        inputs: its arguments by name.

    Raises:
        ValueError: features instead of ids or pixels, a mask that is not 2-D, `nn.DataParallel`, a wrong cache.
    """
    if inputs.get("mm_encoder_outputs") is not None:
        raise ValueError("compression encodes the pictures itself: pass pixel_values, not mm_encoder_outputs")
    check_ids(inputs)
    if is_replica(body):
        raise ValueError("nn.DataParallel can't copy an attached model; start one process per GPU with torchrun")
    check_cache(inputs.get("past_key_values"))
    if inputs.get("attention_mask") is not None:
        check_mask(inputs["attention_mask"])


def check_resumed(body: Any) -> None:
    """No gradient reaches what was read before.

    Raises:
        ValueError: gradients are on in training.
    """
    if torch.is_grad_enabled() and body.training:
        raise ValueError("pictures that were read before have no gradient: train outside duet.look, or call eval()")


def check_ids(inputs: dict[str, Any]) -> None:
    """Pictures need ids.

    Raises:
        ValueError: pictures with `inputs_embeds`.
    """
    if inputs.get("inputs_embeds") is not None or inputs.get("input_ids", True) is None:
        raise ValueError("compression finds pictures by their placeholders: pass input_ids, not inputs_embeds")


def check_cache(cache: Any) -> None:
    """The cache must be an empty `DynamicCache`, since layers hold different lengths.

    Raises:
        ValueError: the cache is filled, or of another class.
    """
    if cache is None:
        return
    if cache.get_seq_length() > 0:
        raise ValueError(
            "new pictures after a filled cache can't be compressed: start the prompt again without past_key_values "
            "(the whole conversation in one prompt), or leave pixel_values out of later turns"
        )
    if type(cache) is not DynamicCache:
        raise ValueError(
            f"compression needs a DynamicCache, got {type(cache).__name__}: layers hold different lengths; leave "
            "past_key_values out (for caches of a fixed size, ask generate for cache_implementation='static')"
        )


def check_generate(generation_config: Any) -> None:
    """Options of `generate` that a prompt with pictures can't have.

    Raises:
        ValueError: a prefill in chunks, or a quantized cache.
    """
    if generation_config.prefill_chunk_size is not None:
        raise ValueError(
            "prefill_chunk_size: compression ranks all visual tokens together, so a prompt must run in one piece; "
            "leave it out (the shortened prompt takes less memory than its full length suggests)"
        )
    if generation_config.cache_implementation == "quantized":
        raise ValueError(
            "cache_implementation='quantized': compression needs a DynamicCache, whose layers hold different lengths; "
            "leave it out"
        )


def check_fixed(config: Any) -> None:
    """A cache of a fixed size needs masks over its empty columns.

    Args:
        config: config of the text model.

    Raises:
        ValueError: an attention kernel without free masks.
    """
    backend = attention_backend(config)
    if backend not in ("sdpa", "eager"):
        raise ValueError(
            f"cache_implementation='static' with compression needs attn_implementation='sdpa' or 'eager', not "
            f"{backend!r}: load the model with one of them, or leave cache_implementation out"
        )


def check_compiled(lm: Any, compression: Compression) -> None:
    """Compiled prompts have fixed lengths, one attention kernel with free masks, and weights in one place.

    Args:
        lm: text model.
        compression: attached to it.

    Raises:
        UserError: anything else.
    """
    backend, pruner = attention_backend(lm.config), compression.pruner
    if backend not in ("sdpa", "eager"):
        raise UserError(
            f"duet.compile needs attn_implementation='sdpa' or 'eager', not {backend!r}: load the model with one of "
            "them"
        )
    if pruner is not None and not getattr(pruner, "compiles", False):
        raise UserError(
            f"stage 2 of {compression.method} reads values back or chooses its own lengths, which compiled code "
            "cannot: leave duet.compile out, or use duet, pyramiddrop, fastv or a method without a stage 2"
        )
    if not on_one_device(lm) or is_partitioned(lm):
        raise UserError(
            "duet.compile needs all weights on one device: load the model without device_map and offloading, and do "
            "not shard it"
        )


def check_labels(inputs: dict[str, Any]) -> None:
    """The loss needs the logits of every label.

    Raises:
        ValueError: `logits_to_keep` with labels.
    """
    keep = inputs.get("logits_to_keep")
    if keep is not None and not (isinstance(keep, int) and keep == 0):
        raise ValueError("labels need the logits of all their tokens: leave logits_to_keep to its default")


def check_mask(attention_mask: Any) -> None:
    """Columns are cut out of the 2-D mask.

    Raises:
        ValueError: any other mask.
    """
    if isinstance(attention_mask, dict):
        raise ValueError(
            f"compression needs the 2-D attention mask, got finished masks for {', '.join(attention_mask)}; static "
            "caches and custom 4-D masks cannot be shortened"
        )
    if attention_mask.ndim != 2:
        raise ValueError(
            f"compression needs the 2-D attention mask, got {attention_mask.ndim} dimensions "
            f"{tuple(attention_mask.shape)}; static caches and custom 4-D masks cannot be shortened"
        )


def check_packing(position_ids: Tensor | None, attention_mask: Tensor | None) -> None:
    """Packed sequences would see each other.

    Raises:
        ValueError: position ids start again inside a row that has no mask.
    """
    if position_ids is None or attention_mask is not None:
        return
    axes = 1 if position_ids.ndim == 2 else len(position_ids)
    if axes == 3:  # M-RoPE alone does not show packing; with a fourth axis, the first one counts the text
        return
    text = position_ids if position_ids.ndim == 2 else position_ids[0]
    if bool((text.diff(dim=-1) < 0).any()):
        raise ValueError("packed sequences (position ids that start again) can't be compressed; use padded rows")


def check_ending(call: Call) -> None:
    """The last token of a prompt votes and predicts the answer, so it must be text.

    Raises:
        ValueError: a row without labels ends with a picture that may lose its last token.
    """
    compression, layout = call.compression, call.layout
    by_labels = call.labels is not None and call.prompt_lengths is None
    if layout is None or by_labels or not compression.active:
        return
    host = call.at_host()
    assert host.placeholder is not None
    rows = (host.last & host.placeholder).any(1).nonzero().flatten().tolist()
    if rows:
        raise ValueError(f"prompt rows {rows} end with a picture; put the question, or the role of the answer, last")


def prompt_lengths_of(given: Any, inputs: dict[str, Any]) -> Tensor:
    """The caller's prompt lengths, `[B]` long.

    Args:
        given: list or tensor with the number of real tokens in each row's prompt, with placeholders, without padding.
        inputs: `input_ids` and, with padding, `attention_mask`, on the host if it has read them.

    Raises:
        ValueError: not one number for each row, or more tokens than a row has.
    """
    ids, mask = inputs.get("input_ids"), inputs.get("attention_mask")
    if ids is None:
        raise ValueError("prompt_lengths count the tokens of input_ids: pass them, not inputs_embeds")
    lengths = torch.as_tensor(given, device=ids.device)
    if lengths.shape != ids.shape[:1] or lengths.is_floating_point() or lengths.dtype == torch.bool:
        raise ValueError(f"prompt_lengths is {given}; give the number of prompt tokens of each of the {len(ids)} rows")
    real = torch.full_like(lengths, ids.shape[1])
    if torch.is_tensor(mask) and mask.ndim == 2:  # others are refused with their own sentence
        real = mask.sum(-1)
    if bool(((lengths < 1) | (lengths > real)).any()):
        raise ValueError(f"prompt_lengths {lengths.tolist()} of rows with {real.tolist()} real tokens; give 1 or more")
    return lengths.long()


def check_freezing(config: Any, layer: Any) -> None:
    """A layer with frozen tokens has more keys than queries, and gets them outside its positional arguments.

    Args:
        config: config of the text model.
        layer: one of its layers.

    Raises:
        ValueError: an attention kernel without free masks, or reentrant gradient checkpointing.
    """
    backend = attention_backend(config)
    if backend not in ("sdpa", "eager"):
        raise ValueError(
            f"frozen visual tokens need attn_implementation='sdpa' or 'eager', not {backend!r}, which takes no mask of "
            "its own; load the model with one of them, or use a budget without `frozen`"
        )
    if checkpoints_reentrantly(layer):
        raise ValueError(
            "frozen visual tokens get no gradient under reentrant checkpointing: pass "
            "gradient_checkpointing_kwargs={'use_reentrant': False}"
        )


def check_window(config: Any, tokens: int) -> None:
    """Every layer attends to all remaining tokens.

    Args:
        config: config of the text model.
        tokens: longest sequence of any layer.

    Raises:
        ValueError: longer than the sliding window that the model was trained with.
    """
    window = getattr(config, "sliding_window", None)
    if window is not None and tokens > window:
        raise ValueError(
            f"{tokens} tokens are more than the sliding window of {window} of this {config.model_type} model; "
            "shorten the prompt, or detach"
        )
