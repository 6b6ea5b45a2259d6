"""The small world's tokenizer: a LlamaTokenizer; most words, learned by BPE from the training rows, are one token.

LlamaTokenizer does not split text before BPE, so tokens may span words. Each phrase that opens or closes every prompt
(the system sentence, the two suffixes) is merged to one token, because forty constant tokens would only cost time. All
printable characters and all bytes are in the vocabulary, so any other text works too.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from string import printable

from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
from transformers import LlamaTokenizer

from duet.llava.prompts import IMAGE, OPTION_LETTER, SHORT_ANSWER, SYSTEM

SPECIAL = ("<unk>", "<s>", "</s>", "<pad>", IMAGE)
LINES = (SHORT_ANSWER, OPTION_LETTER, "USER:", "Reference OCR token:")  # at the start of a line or turn
PHRASES = (SYSTEM, "USER:", "ASSISTANT:")  # after a space
BLANK = "▁"


def train_tokenizer(texts: Iterable[str], size: int = 440) -> LlamaTokenizer:
    """Learn words from `texts` (about `size` tokens with characters and specials), then merge `PHRASES`."""
    learner = Tokenizer(models.BPE())
    marks = pre_tokenizers.Split(Regex(r"[^\w▁]"), behavior="isolated")
    learner.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(replacement=BLANK, split=True), marks])
    letters = [*sorted(set(printable) - set(" \t\r\x0b\x0c")), BLANK]
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=letters, show_progress=False, min_frequency=20)
    learner.train_from_iterator([*texts, *PHRASES * 50, *(f"\n{line}" for line in LINES * 50)], trainer)
    learned = json.loads(learner.to_str())["model"]
    words = sorted(learned["vocab"], key=learned["vocab"].__getitem__)
    merges = [tuple(pair) for pair in learned["merges"]]
    fixed = [learner.encode(phrase).tokens for phrase in PHRASES]
    fixed += [learner.encode(f"\n{line}").tokens[2:] for line in LINES]  # without the leading space and newline
    for first, *rest in fixed:
        for token in rest:
            merges.append((first, token))
            first += token
            words.append(first)
    alphabet = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), *dict.fromkeys(words)]
    return LlamaTokenizer(
        vocab={token: place for place, token in enumerate(alphabet)},
        merges=list(dict.fromkeys(merges)),
        pad_token="<pad>",
        extra_special_tokens={"image_token": IMAGE},
        model_max_length=1024,
    )
