"""The diffusion transformer: paper size, adaLN-Zero at the start, what it depends on, saving and loading."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from braing3n.config import load_config
from braing3n.config.models import CategoricalCondition, ConditionVocabulary, ContinuousCondition, DiTArchitecture
from braing3n.models.conditions import requested_conditions
from braing3n.models.dit import DiT, dit_card_architecture, load_dit
from braing3n.models.weights import save_model
from braing3n.training.flops import forward_flops
from braing3n.training.seeds import generator, seeded

CONFIG = Path(__file__).parents[2] / "config" / "config.yaml"
VOCABULARY = ConditionVocabulary(
    categorical={"sex": CategoricalCondition(column="sex", classes=("F", "M"))},
    continuous={"age": ContinuousCondition(column="age_at_scan")},
)
SMALL = DiTArchitecture(hidden=24, depth=2, heads=4, mlp_ratio=2, latent=8)
GRID = (2, 3, 2)


def small() -> DiT:
    with seeded(0):
        return DiT(SMALL, VOCABULARY, (), GRID)


def awake(dit: DiT) -> DiT:
    """Give gates and output weights that training would have moved away from zero."""
    with torch.no_grad():
        for number, parameter in enumerate(dit.parameters()):
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator("cpu", number))
    return dit


def inputs(n: int = 2):
    x = torch.randn(n, 12, 8, generator=generator("cpu", 7))
    conditions = requested_conditions([{"sex": "F", "age": 40 + i} for i in range(n)], VOCABULARY)
    return x, torch.linspace(0.2, 0.8, n), conditions.values, conditions.state


def test_paper_size_and_geometry():
    settings = load_config([CONFIG]).dit
    with torch.device("meta"):
        dit = DiT(settings.model, settings.conditions, settings.never_dropped)
        conditions = torch.zeros(2, len(settings.conditions.names))
        velocity = dit(torch.zeros(2, 1200, 32), torch.zeros(2), conditions, conditions.long())
    assert velocity.shape == (2, 1200, 32)
    assert sum(p.numel() for p in dit.blocks.parameters()) == pytest.approx(286.9e6, rel=1e-3)
    assert sum(p.numel() for p in dit.parameters()) == 292_893_728


def test_paper_forward_costs_539_gflop():
    settings = load_config([CONFIG]).dit
    with torch.device("meta"):
        dit = DiT(settings.model, settings.conditions, settings.never_dropped)
    columns = (1, len(settings.conditions.names))
    flops = forward_flops(dit, (1, 1200, 32), (1,), columns, columns, integers=(3,))
    # 12 blocks of 24 d^2 + 4 N d a token, both linear maps, the modulations and the embeddings of a sample
    assert flops == pytest.approx(538.6e9, rel=5e-3)


def test_starts_as_zero_everywhere():
    dit = small()
    assert torch.equal(dit(*inputs()), torch.zeros(2, 12, 8))


def test_zero_start_still_learns():
    """The output layer has a gradient at once; after one step it lets gradients through to the rest."""
    dit = small()
    optimizer = torch.optim.SGD(dit.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        (dit(*inputs()) - 1).square().mean().backward()
        optimizer.step()
    assert all(p.grad is not None for p in dit.parameters())
    assert float(dit.blocks[0].attention.qkv.weight.grad.abs().sum()) > 0


@pytest.mark.parametrize("argument", [0, 1, 2, 3])
def test_depends_on_each_argument(argument):
    dit, given = awake(small()), list(inputs())
    before = dit(*given)
    given[argument] = given[argument] + 1
    assert not torch.allclose(before, dit(*given), atol=1e-4)


def test_tokens_are_told_apart_by_their_position_alone():
    dit = awake(small())
    _, t, values, state = inputs()
    velocity = dit(torch.ones(2, 12, 8), t, values, state).detach()
    distances = torch.cdist(velocity[0], velocity[0]) + torch.eye(12)
    assert float(distances.min()) > 1e-4


def test_samples_do_not_mix():
    dit = awake(small())
    x, t, values, state = inputs(3)
    together = dit(x, t, values, state)
    for i in range(3):
        alone = dit(x[i : i + 1], t[i : i + 1], values[i : i + 1], state[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone)


def test_saved_and_loaded(tmp_path):
    dit = awake(small())
    save_model(dit, {"architecture": dit_card_architecture(dit)}, tmp_path)
    loaded = load_dit(tmp_path)
    assert torch.equal(loaded(*inputs()), dit(*inputs()))
    assert loaded.vocabulary == VOCABULARY
    assert not any(p.requires_grad for p in loaded.parameters())
