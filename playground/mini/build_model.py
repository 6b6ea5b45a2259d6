r"""Builds the small LLaVA as a stock Hugging Face folder: a trained tower, the rest untrained or from a checkpoint.

    python -m playground.mini.build_model --tower playground/mini/runs/tower --output playground/mini/runs/init
    python -m playground.mini.build_model --tower playground/mini/runs/hops_tower \
        --start playground/mini/checkpoints/llava-mini --output playground/mini/runs/hops_init

Decoder: 8 LLaMA layers of width 128, so the paper's drops after 16 and 24 of 32 layers come after 4 and 6. Vision
features as in LLaVA: layer -2 of the tower, CLS dropped, a two-layer GELU projector; 100 tokens per picture.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionModel,
    LlamaConfig,
    LlamaTokenizer,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

from duet.llava.prompts import IMAGE

from .conversations import caption_row, question_row
from .tokenizer import train_tokenizer
from .world import PATCH, PICTURE, rng, sample_scene

# vicuna_v1 as a chat template, for `processor.apply_chat_template`; the same text as `duet.llava.prompts.vicuna_v1`
CHAT_TEMPLATE = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions. "
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}USER: {% else %} {% endif %}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}"
    "{% if message['role'] == 'user' %} ASSISTANT:{% else %}</s>{% endif %}"
    "{% endfor %}"
)


def build_processor(tokenizer: LlamaTokenizer) -> LlavaProcessor:
    """The processor of an 80x80 picture in 10x10 patches."""
    side = {"height": PICTURE, "width": PICTURE}
    return LlavaProcessor(
        image_processor=CLIPImageProcessorPil(size={"shortest_edge": PICTURE}, crop_size=side),
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )


def build_model(
    tokenizer: LlamaTokenizer, tower: CLIPVisionModel, seed: int, layers: int = 8
) -> LlavaForConditionalGeneration:
    """A LLaVA with this tower and randomly initialised projector and decoder (1.4 M parameters)."""
    torch.manual_seed(seed)
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=208,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=1024,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,
    )
    config = LlavaConfig(
        vision_config=tower.config,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        image_seq_length=(PICTURE // PATCH) ** 2,
    )
    model = LlavaForConditionalGeneration(config)
    model.model.vision_tower.load_state_dict(tower.state_dict())
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model


def training_texts(seed: int, count: int = 8000) -> list[str]:
    """Captions and questions of the first training scenes, as they read after a space and at the start of a line."""
    captions, questions = [], []
    for index in range(count):
        random = rng(seed, "train", index)
        scene = sample_scene(random)
        captions.append(caption_row("", "", scene))
        questions.append(question_row("", "", scene, random))
    said = [turn["value"].replace(IMAGE, "") for row in (*captions, *questions) for turn in row["conversations"]]
    return [start + text for text in said for start in ("", "\n")]


def main() -> None:
    """Command line, see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tower", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--start", type=Path, help="a checkpoint that everything but the tower comes from")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    tower = CLIPVisionModel.from_pretrained(arguments.tower)
    if arguments.start is None:
        tokenizer = train_tokenizer(training_texts(arguments.seed))
        model = build_model(tokenizer, tower, arguments.seed)
    else:
        tokenizer = LlamaTokenizer.from_pretrained(arguments.start)
        model = LlavaForConditionalGeneration.from_pretrained(arguments.start)
        model.model.vision_tower.load_state_dict(tower.state_dict())
    model.save_pretrained(arguments.output)
    build_processor(tokenizer).save_pretrained(arguments.output)


if __name__ == "__main__":
    main()
