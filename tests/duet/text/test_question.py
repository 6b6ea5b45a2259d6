"""The question of a prompt as methods before the language model read it."""

from __future__ import annotations

import torch

from duet.text.question import QuestionReader


def test_words_that_name_something_go_through_the_tokenizer_one_by_one(tokenizer):
    prompt = (
        "USER: <image> What colour is the bicycle behind the dog?\nAnswer the question using a single word or phrase."
    )
    ids = torch.tensor(tokenizer(f"{prompt} ASSISTANT:", add_special_tokens=False)["input_ids"])
    picture = tokenizer.convert_tokens_to_ids("<image>")
    text = torch.arange(len(ids)) > (ids == picture).nonzero()[0]
    reader = QuestionReader(tokenizer)
    question = "What colour is the bicycle behind the dog? Answer the question using a single word or phrase."
    assert reader.text(ids, text) == question
    words = [tokenizer(word, add_special_tokens=False)["input_ids"] for word in ("colour", "bicycle", "behind", "dog")]
    assert reader.word_ids(ids, text).tolist() == [piece for word in words for piece in word]


def test_no_question_has_no_words(tokenizer):
    ids = torch.tensor(tokenizer("a dog", add_special_tokens=False)["input_ids"])
    nothing = torch.zeros(len(ids), dtype=torch.bool)
    reader = QuestionReader(tokenizer)
    assert reader.text(ids, nothing) == ""
    assert reader.word_ids(ids, nothing).shape == (0,)
