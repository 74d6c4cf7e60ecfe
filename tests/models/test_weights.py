"""Tests of braing3n.models.weights."""

import pytest
import torch
from torch import nn

from braing3n.errors import BrainG3NError
from braing3n.models.weights import load_card, load_weights, save_model


def network(width: int = 3) -> nn.Module:
    return nn.Sequential(nn.Linear(4, width), nn.Linear(3, 2, bias=False))


def test_round_trip(tmp_path):
    model, card = network(), {"name": "toy", "metrics": {"val_loss": 0.25}}
    save_model(model, card, tmp_path / "toy")
    other = network()
    report = load_weights(other, tmp_path / "toy")
    assert report.matches
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    assert load_card(tmp_path / "toy") == card
    assert sorted(p.name for p in (tmp_path / "toy").iterdir()) == ["card.json", "model.safetensors"]


def test_strict_loading_lists_every_difference_and_changes_nothing(tmp_path):
    save_model(network(), {}, tmp_path)
    other = nn.ModuleDict({"0": nn.Linear(4, 5), "2": nn.Linear(1, 1)})
    before = other["0"].bias.clone()
    with pytest.raises(BrainG3NError) as caught:
        load_weights(other, tmp_path)
    message = str(caught.value)
    assert "2 missing: 2.bias, 2.weight" in message
    assert "1 unexpected: 1.weight" in message
    assert "0.weight: expected (5, 4), found (3, 4)" in message
    assert torch.equal(other["0"].bias, before)


def test_lenient_loading_takes_what_fits_and_reports_the_rest(tmp_path):
    model = network()
    save_model(model, {}, tmp_path)
    other = nn.ModuleDict({"0": nn.Linear(4, 3), "2": nn.Linear(1, 1)})
    report = load_weights(other, tmp_path, strict=False)
    assert torch.equal(other["0"].weight, model[0].weight)
    assert report.missing == ["2.bias", "2.weight"]
    assert report.unexpected == ["1.weight"]


def test_missing_and_truncated_files_are_named(tmp_path):
    with pytest.raises(BrainG3NError, match=r"model\.safetensors: weights are missing"):
        load_weights(network(), tmp_path)
    save_model(network(), {}, tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(BrainG3NError, match="not a whole safetensors file"):
        load_weights(network(), tmp_path)
