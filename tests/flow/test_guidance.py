"""Guidance by hand on a model whose output is its condition."""

from __future__ import annotations

import pytest
import torch

from braing3n.flow.guidance import guided


class Recorder:
    """Velocity = condition; counts evaluations and samples."""

    def __init__(self):
        self.batches = []

    def __call__(self, x, t, conditions):
        assert len(x) == len(t) == len(conditions)
        self.batches.append(len(x))
        return conditions.reshape(-1, 1).expand_as(x)


def join(a, b):
    return torch.cat([a, b])


@pytest.mark.parametrize(("scale", "expected", "batch"), [(0.0, 1.0, 3), (1.0, 4.0, 3), (2.0, 7.0, 6), (1.5, 5.5, 6)])
def test_velocity_is_extrapolated_and_one_branch_is_spared(scale, expected, batch):
    model = Recorder()
    velocity = guided(model, torch.full((3,), 4.0), torch.full((3,), 1.0), join, scale)
    v = velocity(torch.zeros(3, 5), torch.ones(3))
    torch.testing.assert_close(v, torch.full((3, 5), expected))
    assert model.batches == [batch]
