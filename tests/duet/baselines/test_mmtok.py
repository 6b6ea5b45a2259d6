"""What is MMTok's own: words of different number in one batch, and none at all."""

from __future__ import annotations

import torch

from duet.baselines.mmtok import select
from tests.duet.baselines.inputs import drawn


def test_padding_words_do_not_count():
    inputs = drawn(batch=2)
    given = {key: inputs[key] for key in ("features", "projected")}
    words = inputs["text_tokens"]
    valid = torch.tensor([[True, True, False, False], [True] * 4])
    together = select(keep=6, text_tokens=words, text_valid=valid, **given)
    alone = [
        select(
            keep=6,
            text_tokens=words[row : row + 1, :count],
            **{key: part[row : row + 1] for key, part in given.items()},
        )
        for row, count in ((0, 2), (1, 4))
    ]
    assert together.tolist() == torch.cat(alone).tolist()


def test_without_words_the_patches_are_covered():
    inputs = drawn()
    given = {key: inputs[key] for key in ("features", "projected")}
    none = select(keep=6, text_tokens=inputs["text_tokens"][:, :0], **given)
    padded = torch.zeros(3, 4, dtype=torch.bool)
    assert none.tolist() == select(keep=6, text_tokens=inputs["text_tokens"], text_valid=padded, **given).tolist()
    assert none.tolist() != select(keep=6, text_tokens=inputs["text_tokens"], **given).tolist()


def test_a_named_patch_is_kept():
    inputs = drawn(batch=1)
    inputs["text_tokens"] = inputs["projected"][:, 17:18]
    given = {key: inputs[key] for key in ("features", "projected", "text_tokens")}
    assert select(keep=1, **given).tolist() == [[17]]
