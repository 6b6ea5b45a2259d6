"""What reads questions to tiny models: a tokenizer with a word for each of their tokens, and a small CLIP."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig, PreTrainedTokenizerFast


def tiny_tokenizer(size: int = 96) -> PreTrainedTokenizerFast:
    """Every token is one word, `w0`, `w1`, ...; texts begin and end with the first two."""
    vocabulary = {f"▁w{number}": number for number in range(size)} | {"<unk>": size}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", bos_token="▁w0", eos_token="▁w1")


def save_tiny_clip(folder: Path, width: int = 32) -> str:
    """A CLIP checkpoint of random weights whose tower is as wide as a tiny model's; returns its path."""
    sizes = {"intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    ends = {"bos_token_id": 0, "eos_token_id": 1}
    text = CLIPTextConfig(vocab_size=97, hidden_size=16, max_position_embeddings=8, **ends, **sizes)
    vision = CLIPVisionConfig(hidden_size=width, image_size=56, patch_size=14, **sizes)
    torch.manual_seed(0)
    config = CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=12)
    CLIPModel(config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return str(folder)
