"""Tests of braing3n.models.mae. Mask convention: 0 is keep, 1 is remove."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from braing3n.config.models import MAEArchitecture
from braing3n.errors import BrainG3NError
from braing3n.models.mae import (
    MaskedAutoencoder,
    fixed_masking,
    forward_flops,
    gather_tokens,
    load_mae,
    mae_card_architecture,
    random_masking,
    training_flops,
    visible_count,
)
from braing3n.models.transformer import patchify, unpatchify
from braing3n.models.weights import save_model
from braing3n.training.seeds import seeded

SHAPE = (32, 48, 32)  # 2 x 3 x 2 = 12 tokens
SMALL = {
    "hidden": 48,
    "depth": 2,
    "heads": 4,
    "mlp": 96,
    "decoder_hidden": 24,
    "decoder_depth": 1,
    "decoder_heads": 2,
    "decoder_mlp": 48,
    "mask_ratio": 0.75,
}


def small(**changes) -> MaskedAutoencoder:
    with seeded(0):
        return MaskedAutoencoder(MAEArchitecture(**{**SMALL, **changes}), SHAPE)


def random_volumes(n: int = 2, seed: int = 1) -> torch.Tensor:
    return torch.randn(n, 1, *SHAPE, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("tokens", "ratio", "visible"),
    [(1200, 0.70, 360), (120, 0.9, 12), (1200, 0.75, 300), (600, 0.7, 180), (12, 0.75, 3)],
)
def test_visible_count_is_exact(tokens, ratio, visible):
    assert visible_count(tokens, ratio) == visible


def test_masks_have_exactly_the_visible_count_and_are_consistent():
    masking = random_masking(8, 1200, 360, torch.Generator().manual_seed(3), "cpu")
    mask = masking.mask
    assert masking.ids_keep.shape == (8, 360)
    assert masking.ids_masked.shape == (8, 840)
    assert (mask.sum(dim=1) == 840).all()  # 1 is remove
    assert (mask.gather(1, masking.ids_keep) == 0).all()  # 0 is keep
    assert (mask.gather(1, masking.ids_masked) == 1).all()
    concatenated = torch.cat([masking.ids_keep, masking.ids_masked], dim=1)
    assert (concatenated.gather(1, masking.ids_restore) == torch.arange(1200)).all()
    assert (masking.ids_masked.diff(dim=1) > 0).all()  # in the order of the grid


def test_masks_are_uniform_and_reproducible():
    first, second = (random_masking(2000, 12, 3, torch.Generator().manual_seed(3), "cpu").mask for _ in range(2))
    assert torch.equal(first, second)
    # Each token is kept a quarter of the time; 5 standard errors of 2000 draws.
    torch.testing.assert_close(first.mean(dim=0), torch.full((12,), 0.75), atol=5 * (0.1875 / 2000) ** 0.5, rtol=0)


def test_fixed_masks_belong_to_their_seeds_whatever_the_batch():
    together = fixed_masking(12, 3, [7, 8, 9], "cpu").mask
    assert torch.equal(together[1:2], fixed_masking(12, 3, [8], "cpu").mask)
    assert not torch.equal(together[0], together[1])


def test_loss_is_the_mean_squared_error_of_masked_patches():
    model, volumes = small(), random_volumes()
    loss, prediction, mask = model(volumes, torch.Generator().manual_seed(5))
    target = patchify(volumes)
    errors = []
    for b in range(2):
        for k, n in enumerate(n for n in range(12) if mask[b, n] == 1):
            errors.append(((prediction[b, k] - target[b, n]) ** 2).mean())
    assert prediction.shape == (2, 9, 4096)
    assert len(errors) == 2 * 9
    torch.testing.assert_close(loss, torch.stack(errors).mean())


def test_reconstruction_keeps_what_was_seen_and_fills_in_the_rest():
    model, volumes = small(), random_volumes()
    masking = fixed_masking(12, 3, [4, 5], "cpu")
    _, prediction = model.forward_masked(volumes, masking)
    before, after, mask = patchify(volumes), patchify(model.reconstruct(volumes, masking)), masking.mask
    assert torch.equal(after[mask == 0], before[mask == 0])
    assert torch.equal(after[mask == 1], prediction.flatten(0, 1))


def test_masked_patches_are_not_seen():
    model, volumes = small(), random_volumes()
    _, prediction, mask = model(volumes, torch.Generator().manual_seed(5))
    patches = patchify(volumes)
    changed_masked = unpatchify(patches + mask[..., None], model.grid)
    changed_visible = unpatchify(patches + (1 - mask)[..., None], model.grid)
    _, same, _ = model(changed_masked, torch.Generator().manual_seed(5))
    _, other, _ = model(changed_visible, torch.Generator().manual_seed(5))
    assert torch.equal(same, prediction)
    assert not torch.allclose(other, prediction)


@pytest.mark.parametrize("cls_token", [False, True])
def test_encode_is_the_encoder_on_all_tokens_in_order(cls_token):
    model, volumes = small(cls_token=cls_token), random_volumes()
    latent = model.forward_encoder(model.patches(volumes), torch.arange(12).expand(2, -1))
    encoded = model.encode(volumes)
    assert encoded.shape == (2, 12, 48)
    torch.testing.assert_close(encoded, latent[:, int(cls_token) :])


def test_decoder_puts_tokens_back_where_they_came_from():
    model = small(decoder_depth=1)
    with (
        torch.no_grad()
    ):  # a decoder that passes tokens through: the block adds nothing, positions and link are trivial
        for module in (model.decoder_blocks[0].attention.out, model.decoder_blocks[0].mlp[2]):
            module.weight.zero_()
            module.bias.zero_()
        model.decoder_positions.zero_()
    masking = random_masking(1, 12, 3, torch.Generator().manual_seed(0), "cpu")
    latent = torch.randn(1, 3, 48)
    alone = model.decoder_norm(model.decoder_embed(latent))
    decoded = model.forward_decoder(latent, masking.ids_restore)
    torch.testing.assert_close(decoded[0, masking.ids_keep[0]], alone[0])
    masked = decoded[0, masking.ids_masked[0]]
    torch.testing.assert_close(masked, masked[:1].expand(9, -1))  # all masked tokens alike


@pytest.mark.parametrize("cls_token", [False, True])
def test_trains_under_bfloat16_autocast_with_every_parameter(cls_token):
    model = small(cls_token=cls_token)
    with torch.autocast("cpu", torch.bfloat16):
        loss, _, _ = model(random_volumes(), torch.Generator().manual_seed(5))
    loss.backward()
    assert loss.dtype == torch.float32
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


def test_overfits_one_volume():
    model, volumes = small(mask_ratio=0.5), random_volumes(1) * 0.1 + torch.linspace(-1, 1, 32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for step in range(60):
        loss, _, _ = model(volumes, torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    # Noise of standard deviation 0.1 cannot be predicted where it is masked; the ramp (variance 0.35) can.
    assert sum(losses[-5:]) / 5 < 0.1 * losses[0]


def test_wrong_shape_is_named():
    with pytest.raises(ValueError, match=r"\(32, 48, 32\).*\(2, 1, 32, 32, 32\)"):
        small().encode(torch.zeros(2, 1, 32, 32, 32))


def test_flops_at_paper_size_agree_with_torch():
    with torch.device("meta"):
        model = MaskedAutoencoder(MAEArchitecture())
        patches, target = torch.empty(1, 1200, 4096), torch.empty(1, 840, 4096)
        keep, masked, restore = (torch.zeros(1, n, dtype=torch.long) for n in (360, 840, 1200))
    counter = FlopCounterMode(display=False)
    with counter:
        x = model.forward_decoder(model.forward_encoder(patches, keep), restore)
        prediction = model.head(gather_tokens(x, masked))
        forward = counter.get_total_flops()
        model.forward_loss(prediction, target).backward()
    assert forward == forward_flops(model)
    assert forward == pytest.approx(517e9, rel=0.005)
    # The fused attention kernel recomputes the scores in its backward pass: a half more of attention than counted here.
    assert counter.get_total_flops() == pytest.approx(training_flops(model), rel=0.05)
    assert training_flops(model) == pytest.approx(1.57e12, rel=0.02)


def test_paper_size_has_331_million_parameters():
    with torch.device("meta"):
        model = MaskedAutoencoder(MAEArchitecture())
    assert model.visible == 360
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(331.0e6, rel=0.005)


def test_same_seed_same_model():
    first, second = small().state_dict(), small().state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_load_mae_gives_back_a_frozen_model(tmp_path):
    model = small(cls_token=True)
    save_model(model, {"architecture": mae_card_architecture(model)}, tmp_path)
    loaded = load_mae(tmp_path)
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    assert torch.equal(loaded.encode(random_volumes()), model.eval().encode(random_volumes()))


def test_load_mae_without_a_card_says_so(tmp_path):
    with pytest.raises(BrainG3NError, match=r"no card\.json"):
        load_mae(tmp_path)
