"""Parameter groups of the optimizer: a learning rate and a weight decay for each part.

In LLaVA's order (`llava/train/llava_trainer.py`, haotian-liu/LLaVA c121f04): first the parameters without a rate of
their own, those that decay before those that do not, then the same for every rate. Norms and biases do not decay.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from torch import nn

from duet.train.freeze import Parts


def parameter_groups(
    model: nn.Module, rates: Mapping[str, float], weight_decay: float, decayed: Collection[str]
) -> list[dict[str, Any]]:
    """Groups for `torch.optim`; empty ones are left out.

    Args:
        model: after `freeze`, bare or with adapters.
        rates: part or prefix (`duet.train.freeze`) -> learning rate; the longest prefix wins over a part.
        weight_decay: of the parameters in `decayed`.
        decayed: names of parameters with weight decay.

    Raises:
        UserError: a rate for a part or prefix without trained parameters.
    """
    parts = Parts.of_model(model)
    learned = [(name, value) for name, value in model.named_parameters() if value.requires_grad]
    parts.check(list(rates), [name for name, _ in learned], "rates (of the trained parameters)")
    groups: list[dict[str, Any]] = []
    for entry in (None, *rates):
        for decays in (True, False):
            members = [
                value
                for name, value in learned
                if parts.first(list(rates), name) == entry and (name in decayed) == decays
            ]
            if members:
                rate = {} if entry is None else {"lr": rates[entry]}
                groups.append({"params": members, "weight_decay": weight_decay if decays else 0.0, **rate})
    return groups
