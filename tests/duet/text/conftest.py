"""Small tokenizers of each kind, trained in a second: Llama's BPE with byte fallback, Qwen's byte-level BPE, and a slow
sentencepiece one."""

from __future__ import annotations

import io
import json

import pytest
import sentencepiece
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.tokenization_utils_sentencepiece import SentencePieceBackend

CORPUS = [
    "A chat between a curious user and an artificial intelligence assistant.",
    "What colour is the bicycle behind the dog? How many people wear a red hat? Is there a traffic light?",
    "Answer the question using a single word or phrase. Answer with the option's letter from the given choices.",
    "USER: Which of these is left of the house? ASSISTANT: the small green circle, 12 of them, to the right",
]
PLACEHOLDER = "<image>"


def _llama() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    words = [f"▁{word}" for line in CORPUS for word in line.split()]
    tokenizer.train_from_iterator(words, trainers.BpeTrainer(vocab_size=250, show_progress=False))
    made = json.loads(tokenizer.to_str())
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), *made["model"]["vocab"]]
    made["model"]["vocab"] = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer.from_str(json.dumps(made))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


def _byte_level() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>")


def _sentencepiece(path: str) -> SentencePieceBackend:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS),
        model_writer=model,
        model_type="bpe",
        vocab_size=340,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
        num_threads=1,
    )
    with open(path, "wb") as file:
        file.write(model.getvalue())
    return SentencePieceBackend(vocab_file=path, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


@pytest.fixture(scope="session", params=["llama", "byte_level", "sentencepiece_slow"])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    """One tokenizer of each family, with a special placeholder for pictures."""
    if request.param == "sentencepiece_slow":
        made = _sentencepiece(str(tmp_path_factory.mktemp("sentencepiece") / "tokenizer.model"))
    else:
        made = _llama() if request.param == "llama" else _byte_level()
    made.add_tokens([AddedToken(PLACEHOLDER, special=True, normalized=False)])
    return made
