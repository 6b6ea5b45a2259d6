"""What of transformers and its neighbours an attached model works with: plain data, read by tests and by the document.

`python -m tests.compatibility.table` writes `docs/compatibility.md` anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

#: Columns, in this order: name in `tests.families.FAMILIES` -> name in the document.
FAMILIES = {
    "llava": "LLaVA-1.5",
    "llava_next": "LLaVA-NeXT",
    "videollava": "Video-LLaVA",
    "qwen2_5_vl": "Qwen2.5-VL",
    "qwen2_vl": "Qwen2-VL",
    "qwen3_vl": "Qwen3-VL",
}
#: Stage 1 alone, stage 2 alone, both.
METHODS = ("visionzip_c", "pyramiddrop_all", "duet")
CLIP = ("llava", "llava_next", "videollava")

EQUAL, STOCK, REFUSED = "equal", "stock", "refused"
DOCUMENT = Path(__file__).parents[2] / "docs/compatibility.md"


@dataclass(frozen=True)
class Feature:
    """One row.

    Attributes:
        key: name of the function in `features.py` or `surroundings.py` beside this file that tries it.
        group: heading.
        title: what it is, in a few words, code in backticks.
        verdict: `equal` (every logit is that of the whole sequence recomputed without a cache), `stock` (as the stock
            model does it) or `refused`.
        sentence: for `refused`, a part of the message that says what to do.
        note: what a user should know.
        needs: what the test needs; it is skipped elsewhere.
        families: where it exists.
        methods: which are tried; by default all where `equal` is claimed, and both stages together elsewhere.
    """

    key: str
    group: str
    title: str
    verdict: str = EQUAL
    sentence: str = ""
    note: str = ""
    needs: str = ""
    families: tuple[str, ...] = tuple(FAMILIES)
    methods: tuple[str, ...] = ()

    @property
    def tried(self) -> tuple[str, ...]:
        """Methods under which it is tried."""
        return self.methods or (METHODS if self.verdict == EQUAL else METHODS[-1:])


_G, _F, _C, _S, _M, _W = "generate", "forward", "caches", "speculation", "the model as an object", "wrappers"

FEATURES = (
    Feature("greedy", _G, "greedy decoding, batch of prompts of different lengths, padded on the left"),
    Feature("beams", _G, "`num_beams`", note="scores of the returned beams"),
    Feature("sampling", _G, "`do_sample`, `num_return_sequences`", note="the same seed draws the same"),
    Feature("no_cache", _G, "`use_cache=False`", note="each step runs the prompt again; new tokens do not vote"),
    Feature("streamer", _G, "`TextIteratorStreamer` and other streamers", methods=("duet",)),
    Feature("custom_generate", _G, "`custom_generate=` a function", methods=("duet",)),
    Feature("threads", _G, "two threads, one model, two prompts"),
    Feature("prefill_chunks", _G, "`prefill_chunk_size`", REFUSED, "prefill_chunk_size: compression ranks"),
    Feature("embeds_and_pixels", _G, "`inputs_embeds` beside pixels", REFUSED, "pass input_ids, not inputs_embeds"),
    Feature("prompt_lengths", _F, "prompt + answer with `prompt_lengths=`", note="answers do not vote"),
    Feature("labels", _F, "prompt + answer with `labels`", note="answers do not vote; loss of the short rows"),
    Feature("loglikelihood", _F, "`duet.loglikelihood`"),
    Feature("features_out", _F, "`image_hidden_states`, `video_hidden_states`",
            note="those that entered, in the order of the placeholders", families=CLIP),
    Feature("hidden_states", _F, "`output_hidden_states`, `output_attentions`",
            note="each layer's own length: they get shorter; the last hidden state is back at full length, 0 where a "
                 "token was dropped"),
    Feature("embeds_alone", _F, "`inputs_embeds` into which the caller has merged the pictures", STOCK,
            note="runs uncompressed, and warns once"),
    Feature("no_pixels", _F, "ids with placeholders, but no pixels", STOCK, note="text from nothing, as in stock"),
    Feature("feature_layer", _F, "`vision_feature_layer=` at the call", note="scores are of that layer, too",
            families=CLIP),
    Feature("select_strategy", _F, "`vision_feature_select_strategy=` at the call", REFUSED,
            "set it in the model's config instead", families=CLIP),
    Feature("encoder_outputs", _F, "`mm_encoder_outputs=`", REFUSED, "pass pixel_values, not mm_encoder_outputs"),
    Feature("packed", _F, "packed sequences", REFUSED, "use padded rows", families=CLIP),
    Feature("mask_4d", _F, "a 4-D attention mask", REFUSED, "needs the 2-D attention mask"),
    Feature("labels_and_logits", _F, "`logits_to_keep` beside `labels`", REFUSED, "leave logits_to_keep"),
    Feature("checkpointing", _F, "gradient checkpointing", note="the same loss", methods=("duet",)),
    Feature("eager", _F, "`attn_implementation` eager"),
    Feature("own_attention", _F, "`AttentionInterface.register`: one's own attention", methods=("duet",)),
    Feature("half", _F, "bfloat16", note="to the precision of the type", methods=("duet",)),
    Feature("given_cache", _C, "`past_key_values=DynamicCache()`, `cache_implementation=\"dynamic\"`"),
    Feature("static_name", _C, "`cache_implementation=\"static\"`", note="its steps are compiled where stock compiles"),
    Feature("static_cache", _C, "`past_key_values=StaticCache(...)`", REFUSED, "needs a DynamicCache, got StaticCache"),
    Feature("quantized_cache", _C, "`cache_implementation=\"quantized\"`", REFUSED, "cache_implementation='quantized'"),
    Feature("offloaded_cache", _C, "`cache_implementation=\"offloaded\"`", needs="a GPU, as in stock"),
    Feature("second_turn", _C, "a second turn of text on the returned cache"),
    Feature("by_hand", _C, "decoding by hand, another prompt in between"),
    Feature("new_pictures", _C, "a second turn with pictures on the returned cache", REFUSED,
            "new pictures after a filled cache"),
    Feature("stock_draft", _S, "`assistant_model=` a stock model", note="one prompt at a time, as in stock"),
    Feature("own_draft", _S, "`assistant_model=` an attached model"),
    Feature("attached_draft", _S, "a stock model with an attached one as `assistant_model`", STOCK),
    Feature("lookup", _S, "`prompt_lookup_num_tokens`", note="image tokens among the guesses are words"),
    Feature("copied", _M, "`copy.deepcopy`", methods=("duet",)),
    Feature("pickled", _M, "pickle, `torch.save(model)`, spawned workers", methods=("duet",)),
    Feature("saved", _M, "`save_pretrained`", STOCK,
            note="writes a stock checkpoint: the method is no part of it and has to be attached again"),
    Feature("detached", _M, "`duet.detach`", STOCK, note="bit for bit"),
    Feature("compiled_first", _M, "the text model's `forward` replaced before attaching", REFUSED,
            "something else replaced forward"),
    Feature("lora", _W, "peft LoRA, before or after attaching", methods=("duet",)),
    Feature("dispatched", _W, "accelerate `dispatch_model` (`device_map`)", methods=("duet",)),
    Feature("offloaded", _W, "accelerate `cpu_offload` of the whole model", methods=("duet",)),
    Feature("on_disk", _W, "accelerate `disk_offload` of the decoder", methods=("duet",)),
    Feature("data_parallel", _W, "`nn.DataParallel` on several devices", REFUSED, "one process per GPU"),
    Feature("bitsandbytes_nf4", _W, "bitsandbytes nf4", note="run with 0.50", families=("llava",),
            methods=("duet",)),
    Feature("torchao_int8", _W, "torchao int8 weights", note="run with 0.18", families=("llava",),
            methods=("duet",)),
)  # fmt: skip

_WORDS = {EQUAL: "yes", STOCK: "as stock", REFUSED: "refused"}
_HEAD = """# Compatibility

<!-- Written by `python -m tests.compatibility.table` from the table that the tests read. Do not edit. -->

What works with a model that DUET is attached to. Each cell is a test (`tests/compatibility`) on a small random model
of the family, under stage 1 alone (`visionzip_c`), stage 2 alone (`pyramiddrop_all`) and both (`duet`); what does not
depend on the stages (refusals, copies, wrappers) is tried under both.

* **yes**: every logit equals that of the whole sequence, recomputed from the first token without a cache.
* **as stock**: it does what the stock model does.
* **refused**: a `ValueError` says why, and what to do instead. The sentence is below the table.
* **-**: the family has no such thing.
* **?**: the test is written, and skipped where what it needs is missing, as it was when this file was written.

## Scoring an answer

Stage 2 lets the text after the last picture rank the visual tokens. When a prompt and an answer run in one forward, the
model has to be told where the prompt ends, or the answer would help to choose what the model sees:

```python
model(**inputs, prompt_lengths=[612, 598])  # real tokens of each row's prompt, placeholders included, padding not
model(**inputs, labels=labels)  # says the same: tokens that have a label are answers
scores = duet.loglikelihood(model, prompts, [["yes", "no"], ["a dog"]], tokenizer=processor.tokenizer)
scores[0][1].total, scores[0][1].tokens, scores[0][1].greedy
```

`generate` knows it by itself, with and without a cache and in assisted decoding. Trainers that compute
log-probabilities without labels (GRPO, reward models) have to pass `prompt_lengths`.
"""
_TAIL = """
## Not in the table

* `attn_implementation="flex_attention"` compiles anew for each length and was not finished on a CPU;
  `flash_attention_2` needs a GPU.
* `torch.compile(model)`, called with the backend `eager`, gave equal logits for all families when it was tried; it
  takes minutes, so no test repeats it. What is done with pictures stays outside of the graph.
  `torch.compile(model).generate` runs uncompiled, also in stock.
* `generate_batch` (continuous batching) takes text prompts only, also in stock.
* `guidance_scale` runs; its second branch has no pictures, also in stock.
* A batch that is padded on the right gets wrong tokens from `generate`, also in stock, which warns. Set
  `processor.tokenizer.padding_side = "left"`; `duet.load` does.
"""


def document() -> str:
    """The whole of `docs/compatibility.md`."""
    lines = [_HEAD]
    for group in dict.fromkeys(feature.group for feature in FEATURES):
        rows = [feature for feature in FEATURES if feature.group == group]
        lines += [f"## {group[0].upper()}{group[1:]}", ""]
        lines.append("| | " + " | ".join(FAMILIES.values()) + " | |")
        lines.append("|---|" + "---|" * len(FAMILIES) + "---|")
        for row in rows:
            word = "?" if row.needs else _WORDS[row.verdict]
            cells = [word if name in row.families else "-" for name in FAMILIES]
            note = f"needs {row.needs}" if row.needs else row.note
            lines.append("| " + " | ".join([row.title, *cells, note]) + " |")
        refused = [row for row in rows if row.verdict == REFUSED]
        lines += ["", *(f"* {row.title}: *... {row.sentence} ...*" for row in refused)] if refused else []
        lines.append("")
    return "\n".join(lines).rstrip() + "\n" + _TAIL


if __name__ == "__main__":
    DOCUMENT.write_text(document(), encoding="utf-8")
