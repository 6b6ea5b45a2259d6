"""Attach compression to one loaded model, and detach it. No class is patched, no weight is touched.

There are four entry points, all on the instance (and some changes to `generate`, see `generation.py`; and
`save_pretrained` writes the setting beside the weights):

* a forward hook pair on the model with the head: takes `labels`, returns the loss of the shortened sequence;
* a forward pre-hook on its body: encodes and reduces pictures, replaces `input_ids` and `pixel_values` by embeddings;
* a forward hook on the body: adds the visual features to its output, as the stock forward does;
* the text model's `forward`: runs `duet/engine/decoder.py` for prompts with pictures and shortened caches, and the
  stock forward otherwise; a pre-hook on each of its layers does the drops (`duet/engine/prompt.py`), one on each
  attention adds the keys of frozen tokens (`duet/engine/frozen.py`).

The state of a call is passed between them as the keyword argument `duet_call`.
"""

from __future__ import annotations

import inspect
import warnings
from functools import partial
from types import MethodType
from typing import TYPE_CHECKING, Any

import torch
from transformers import DynamicCache

from duet.engine.attachment import SLOT, Attachment, attached, is_attached
from duet.engine.cache import ReducedCache, shift_of
from duet.engine.call import NO_TOKEN, Call, Compression, after_prompt
from duet.engine.checks import (
    check_ending,
    check_labels,
    check_mask,
    check_packing,
    check_prompt,
    check_resumed,
    prompt_lengths_of,
)
from duet.engine.compat import aligned, capture_outputs, capturing, forward_slot, merge_with_config_defaults
from duet.engine.decoder import run_cached, run_prompt
from duet.engine.fixed import FixedCache, Steps, run_fixed
from duet.engine.frozen import enter_attention
from duet.engine.generation import PROMPT_LENGTHS, adjust_generate, restore_generate
from duet.engine.host import first_marked, read_host, upload
from duet.engine.planned import run_planned
from duet.engine.prompt import enter_layer
from duet.engine.recording import active_trace
from duet.engine.resume import resume_prompt, run_resumed
from duet.engine.seen import pictures_in_view, prefixes_of
from duet.engine.vision import embed_prompt
from duet.errors import UserError
from duet.ops.regions import compiling

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers.modeling_outputs import BaseModelOutputWithPast


def attach_compression(model: nn.Module, compression: Compression, setting: Any = None) -> None:
    """Attach, replacing any earlier attachment.

    Args:
        model: the module with the head that the adapter knows, not a wrapper around it.
        compression: built by `duet.registry`.
        setting: what built it, see `duet.checkpoints.setting.Setting`.
    """
    if is_attached(model):
        detach(model)
    body, lm = compression.vision.body(model), compression.decoder.text_model(model)
    _check_text_model(lm, compression.decoder.text_models)
    _replace_forward(lm)
    adjust_generate(model)
    attachment = Attachment(compression, model, body, lm, [], setting, Steps())
    hooks = _Hooks(attachment)
    attachment.handles += [
        model.register_forward_pre_hook(hooks.take_labels, with_kwargs=True),
        body.register_forward_pre_hook(hooks.embed, with_kwargs=True),
        body.register_forward_hook(hooks.put_features, with_kwargs=True),
        model.register_forward_hook(hooks.put_loss, with_kwargs=True),
        *(layer.register_forward_pre_hook(enter_layer, with_kwargs=True) for layer in lm.layers),
        *(
            compression.decoder.attention(layer).register_forward_pre_hook(enter_attention, with_kwargs=True)
            for layer in lm.layers
        ),
    ]
    model.save_pretrained = partial(_save_pretrained, model)  # type: ignore[assignment]
    setattr(model, SLOT, attachment)


def detach(model: nn.Module) -> None:
    """Remove compression: the model is stock again, bit for bit.

    Raises:
        ValueError: nothing is attached.
    """
    attachment = attached(model)
    for handle in attachment.handles:
        handle.remove()
    _restore_forward(attachment.lm)
    restore_generate(attachment.model)
    vars(attachment.model).pop("save_pretrained", None)
    delattr(attachment.model, SLOT)


def _save_pretrained(model: Any, save_directory: Any, *args: Any, **kwargs: Any) -> Any:
    """The stock method, then the setting; processes that save no weights save no setting."""
    saved = type(model).save_pretrained(model, save_directory, *args, **kwargs)
    setting = getattr(model, SLOT).setting
    if setting is not None and kwargs.get("is_main_process", True):
        setting.write(save_directory)
    return saved


class _Hooks:
    """The hooks; they hold the attachment and whether they have warned, but no state of a call."""

    def __init__(self, attachment: Attachment) -> None:
        self.attachment = attachment
        self.warned = False

    @property
    def compression(self) -> Compression:
        """The parts to run the next call under."""
        return self.attachment.compression

    def take_labels(self, model: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]] | None:
        """Keep arguments that the stock forward must not see in a batch with pictures: labels, because its loss does
        not fit the shortened rows, and prompt lengths.
        """
        kwargs = _by_name(model, args, kwargs)
        labels, lengths = kwargs.get("labels"), kwargs.pop(PROMPT_LENGTHS, None)
        only_targets = kwargs.pop("only_targets", model.training)
        if not self.attachment.pixels(kwargs) or (labels is None and lengths is None):
            return (), kwargs
        if labels is not None:
            check_labels(kwargs)
        if lengths is not None and kwargs.get("input_ids") is None:
            prompt_lengths_of(lengths, kwargs)
        call = self._call(lengths, labels=labels, only_targets=only_targets and labels is not None)
        return (), {**kwargs, "labels": None, "duet_call": call}

    @torch.compiler.disable  # dynamo would specialise on the size of every picture
    def embed(self, body: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]] | None:
        """Turn a prompt with pictures into embeddings."""
        kwargs = _by_name(body, args, kwargs)
        pixels, lengths = self.attachment.pixels(kwargs), kwargs.pop(PROMPT_LENGTHS, None)
        if not pixels and kwargs.get("mm_encoder_outputs") is None:
            return (), self._continue(kwargs)
        check_prompt(body, kwargs)
        call = kwargs.get("duet_call") or self._call(lengths)
        call.trace, call.input_ids = active_trace(body), kwargs["input_ids"]
        host = self._read(call, body, kwargs)
        asked = {**_without_answers(call, kwargs), "on_host": host}
        try:
            if kwargs.get("position_ids") is None:
                kwargs["position_ids"] = asked["position_ids"] = self.compression.decoder.position_ids(body, asked)
            pictures = pictures_in_view(body)
            if pictures is not None:
                check_resumed(body)
                prefixes = prefixes_of(pictures, body, self.attachment.lm, call, kwargs)
                embeds = resume_prompt(body, call, asked, prefixes)
            else:
                if not (torch.is_grad_enabled() or body.training or call.trace is not None or call.labels is not None):
                    call.compiled = self.attachment.compiled
                with aligned(body), compiling(call.compiled):  # LLaVA-NeXT's newline is a parameter of the body itself
                    embeds = embed_prompt(body, call, asked)
            check_ending(call)
        except ValueError as error:
            assert call.host is not None and call.host.input_ids is not None
            if call.host.prompt_lengths is None or torch.equal(host["input_ids"], call.host.input_ids):
                raise
            counted = f"within prompt_lengths {call.host.prompt_lengths.tolist()}, which count every placeholder"
            raise (UserError if isinstance(error, UserError) else ValueError)(f"{error} ({counted})") from error
        consumed = dict.fromkeys(("input_ids", *pixels))
        return (), {**kwargs, **consumed, "inputs_embeds": embeds, "duet_call": call}

    def _continue(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Text after a shortened prompt, numbered by its cache; or a prompt without pictures."""
        embeds, cache = kwargs.get("inputs_embeds"), kwargs.get("past_key_values")
        if not isinstance(cache, ReducedCache):
            if embeds is not None and embeds.shape[1] > 1 and self.compression.active:
                self._warn_of_embeds()
        elif cache.prompt.shift is not None and kwargs.get("position_ids") is None:
            if kwargs.get("attention_mask") is not None:
                check_mask(kwargs["attention_mask"])
            new = (kwargs["input_ids"] if embeds is None else embeds).shape[1]
            positions = cache.prompt.positions(new, cache.get_seq_length(), kwargs.get("attention_mask"))
            return {**kwargs, "position_ids": positions}
        return kwargs

    def _warn_of_embeds(self) -> None:
        if not self.warned:
            self.warned = True
            warnings.warn(
                "this prompt was passed as inputs_embeds, where pictures look like words: it runs uncompressed; "
                "pass input_ids and pixels to compress it",
                stacklevel=2,
            )

    def put_features(self, body: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> Any:
        """Add the projected features to the output as the stock forward does, in the order of the placeholders."""
        call = kwargs.get("duet_call")
        if call is None or call.resumed is not None or isinstance(output, tuple):
            return None
        for kind in ("image", "video"):
            if hasattr(output, f"{kind}_hidden_states"):
                token, embeds = getattr(body.config, f"{kind}_token_id"), kwargs["inputs_embeds"]
                mask = (call.layout.filled & (call.input_ids == token)).to(embeds.device)
                count = call.filled_of(token)
                index = mask.flatten().nonzero()[:, 0] if count is None else first_marked(mask, count)
                features = embeds.flatten(0, 1).index_select(0, index)
                setattr(output, f"{kind}_hidden_states", features if len(features) else None)
        return output

    def put_loss(self, model: Any, args: tuple, kwargs: dict[str, Any], output: Any) -> Any:
        """Add the loss of the shortened sequence, computed by the model's own loss function."""
        call = kwargs.get("duet_call")
        if call is None or call.targets is None:
            return None
        logits = output[0] if isinstance(output, tuple) else output.logits
        rows, columns, targets = (part.to(logits.device) for part in call.targets)
        predictions = logits if call.only_targets else logits[rows, columns][None]
        extra = {name: kwargs[name] for name in ("num_items_in_batch", "ignore_index") if name in kwargs}
        loss = model.loss_function(
            logits=predictions,
            labels=None,
            vocab_size=predictions.shape[-1],
            shift_labels=targets[None],
            **extra,
        )
        if isinstance(output, tuple):
            return (loss, *output)
        output.loss = loss
        return output

    def _call(self, lengths: Any, **options: Any) -> Call:
        return Call(self.compression, prompt_lengths=lengths, **options)

    def _read(self, call: Call, body: Any, kwargs: dict[str, Any]) -> dict[str, Tensor]:
        """The prompt on the host, in one copy, without placeholders in answers; gives the call its host side."""
        ids = kwargs["input_ids"]
        given = {name: value for name, value in kwargs.items() if name not in ("position_ids", "cache_position")}
        host = read_host({**given, "labels": call.labels, PROMPT_LENGTHS: call.prompt_lengths})
        labels, mask = host.pop("labels", None), host.get("attention_mask")
        call.host = Call(self.compression, labels=labels, input_ids=host["input_ids"])
        if call.prompt_lengths is not None:
            lengths = prompt_lengths_of(host.pop(PROMPT_LENGTHS, call.prompt_lengths), host)
            call.host.prompt_lengths, call.prompt_lengths = lengths, upload(lengths, ids.device)
        asked = _without_answers(call.host, host)["input_ids"]
        call.host.placeholder = self.compression.vision.placeholders(body, asked)
        call.host.valid = torch.ones_like(asked).bool() if mask is None else mask.bool()
        return {**host, "input_ids": asked}


def _by_name(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> dict[str, Any]:
    """All arguments of a forward as keyword arguments, in a new dictionary."""
    names = [name for name in inspect.signature(type(module).forward).parameters if name != "self"]
    return {**dict(zip(names, args, strict=False)), **kwargs}


def _without_answers(call: Call, inputs: dict[str, Any]) -> dict[str, Any]:
    """The arguments without placeholders after the prompt: a generated placeholder is an ordinary word."""
    if call.prompt_lengths is None:
        return dict(inputs)
    ids, mask = inputs["input_ids"], inputs.get("attention_mask")
    answers = after_prompt(call.prompt_lengths, torch.ones_like(ids).bool() if mask is None else mask.bool())
    return {**inputs, "input_ids": ids.masked_fill(answers, NO_TOKEN)}


def _forward(self: Any, *args: Any, duet_call: Call | None = None, **kwargs: Any) -> Any:
    """The text model's forward while attached: `input_ids`, `attention_mask`, `past_key_values` ... as in stock."""
    kwargs = _by_name(self, args, kwargs)
    if duet_call is None and not isinstance(kwargs.get("past_key_values"), ReducedCache):
        return type(self).forward(self, **kwargs)
    return _reduced_forward(self, duet_call=duet_call, **kwargs)


@merge_with_config_defaults
@capture_outputs
def _reduced_forward(
    self: Any,
    input_ids: Tensor | None = None,
    attention_mask: Tensor | None = None,
    position_ids: Tensor | None = None,
    past_key_values: DynamicCache | None = None,
    inputs_embeds: Tensor | None = None,
    use_cache: bool | None = None,
    duet_call: Call | None = None,
    **kwargs: Any,
) -> BaseModelOutputWithPast:
    if inputs_embeds is None:
        inputs_embeds = self.embed_tokens(input_ids)
    kwargs["use_cache"] = use_cache
    if duet_call is None:
        assert isinstance(past_key_values, ReducedCache)
        go_on: Any = run_fixed if isinstance(past_key_values, FixedCache) else run_cached
        return go_on(self, inputs_embeds, position_ids, attention_mask, past_key_values, **kwargs)
    if use_cache and past_key_values is None:
        past_key_values = DynamicCache(config=self.config)
    check_packing(position_ids, attention_mask)
    run: Any = run_prompt if duet_call.resumed is None else run_resumed
    if duet_call.compiled is not None and not capturing():
        run = run_planned
    output = run(self, duet_call, inputs_embeds, position_ids, past_key_values, **kwargs)
    if isinstance(past_key_values, ReducedCache):
        assert duet_call.layout is not None
        past_key_values.prompt.shift = shift_of(position_ids, duet_call.layout.valid)
    return output


def _check_text_model(lm: nn.Module, known: tuple[str, ...]) -> None:
    if not any(base.__name__ in known for base in type(lm).__mro__):
        raise UserError(
            f"the text model is {type(lm).__name__}; compression supports the decoder layers of {', '.join(known)} "
            "here and would rank others wrongly"
        )


def _replace_forward(lm: Any) -> None:
    slot = forward_slot(lm)
    own = vars(lm).get("forward")
    # accelerate leaves the stock method there when its hooks are removed
    if slot == "forward" and own is not None and getattr(own, "__func__", None) is not type(lm).forward:
        raise ValueError(f"something else replaced forward of this {type(lm).__name__}; remove it before attaching")
    # a partial: a bound method would be pickled by a name that the class does not have
    setattr(lm, slot, partial(_forward, lm))


def _restore_forward(lm: Any) -> None:
    slot = forward_slot(lm)
    if slot == "forward":
        vars(lm).pop(slot, None)
    else:
        setattr(lm, slot, MethodType(type(lm).forward, lm))
