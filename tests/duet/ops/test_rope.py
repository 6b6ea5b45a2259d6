"""Rotary embedding: against complex multiplication."""

from __future__ import annotations

import torch
from hypothesis import given

from duet.ops.rope import rotate
from tests.drawing import normals


@given(normals((1, 2), (1, 3), (1, 4), 6), normals(2, 4, 3))
def test_rotate_is_a_complex_multiplication(x, angles):
    angles = angles[: len(x), : x.shape[2]]
    cos, sin = (torch.cat([table, table], -1) for table in (angles.cos(), angles.sin()))
    turned = torch.complex(x[..., :3], x[..., 3:]) * torch.polar(torch.ones_like(angles), angles)[:, None]
    torch.testing.assert_close(rotate(x, cos, sin), torch.cat([turned.real, turned.imag], -1))
