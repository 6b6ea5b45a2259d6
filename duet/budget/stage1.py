"""Stage1: how many tokens of one picture stage 1 keeps, checked."""

from __future__ import annotations

from dataclasses import dataclass

from duet.budget.fields import check_amount, is_count, resolve_amount
from duet.errors import UserError


@dataclass(frozen=True)
class Stage1:
    """Counts of one picture, crop or frame.

    Attributes:
        dominant: a count (int) or a share of the picture's tokens (float in (0, 1]).
        contextual: the same; 0 for none.
        cluster_width: patches merged per contextual token (paper: 4).
        capped: limit counts to the tokens that a picture has instead of raising: dominant ones leave at least one
            token for contextual ones, which get the rest (`modeling_qwen2_5vl_duet.py`).
    """

    dominant: int | float
    contextual: int | float = 0
    cluster_width: int = 4
    capped: bool = False

    def __post_init__(self) -> None:
        check_amount("dominant", self.dominant, least=1)
        check_amount("contextual", self.contextual, least=0)
        if not is_count(self.cluster_width) or self.cluster_width < 1:
            raise UserError(f"cluster_width is {self.cluster_width!r}; it must be a whole number, at least 1")

    def resolve(self, tokens: int, cls: bool) -> tuple[int, int]:
        """Dominant and contextual counts for a picture of `tokens` patches.

        A share is truncated to a count; a share above 0 keeps at least one token.

        Args:
            tokens: patches of the picture, without CLS.
            cls: whether the tower has a CLS token; it is always kept, as one of the dominant tokens.

        Raises:
            UserError: more tokens than the picture has.
        """
        dominant, contextual = resolve_amount(self.dominant, tokens), resolve_amount(self.contextual, tokens)
        if self.capped:
            # the prompt has a placeholder for every patch, but none for CLS
            dominant = min(dominant, max(1, tokens - (contextual > 0)))
            contextual = min(contextual, tokens - dominant)
        if dominant + contextual > tokens + cls:
            raise UserError(
                f"asked for {dominant + contextual} tokens ({dominant} dominant + {contextual} contextual), "
                f"the picture has {tokens}{' and CLS' if cls else ''}; lower `dominant` or `contextual`, "
                "or use a smaller budget of `duet budget list`"
            )
        return dominant, contextual
