"""Tests of braing3n.models.mae. Mask convention: 0 is keep, 1 is remove."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from braing3n.config.models import MAEArchitecture
from braing3n.errors import BrainG3NError
from braing3n.models.mae import (
    MaskedAutoencoder,
    Masking,
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


def test_masks_have_exactly_the_visible_count_and_cover_the_grid():
    masking = random_masking(8, 1200, 360, torch.Generator().manual_seed(3), "cpu")
    mask = masking.mask(1200)
    assert masking.ids_keep.shape == (8, 360)
    assert masking.ids_masked.shape == (8, 840)
    assert (mask.sum(dim=1) == 840).all()  # 1 is remove
    assert (mask.gather(1, masking.ids_keep) == 0).all()  # 0 is keep
    assert (masking.ids.sort(dim=1).values == torch.arange(1200)).all()
    assert (masking.ids_masked.diff(dim=1) > 0).all()  # in the order of the grid


def test_masks_are_uniform_and_reproducible():
    first, second = (random_masking(2000, 12, 3, torch.Generator().manual_seed(3), "cpu").mask(12) for _ in range(2))
    assert torch.equal(first, second)
    # Each token is kept a quarter of the time; 5 standard errors of 2000 draws.
    torch.testing.assert_close(first.mean(dim=0), torch.full((12,), 0.75), atol=5 * (0.1875 / 2000) ** 0.5, rtol=0)


def test_foreground_masks_use_brain_tokens_first():
    brain = torch.zeros(2000, 12, dtype=torch.bool)
    brain[:1000, [1, 4, 5, 7]] = True  # fewer than used: all of them, filled up with others
    brain[1000:, 2:] = True  # more than used: only of them
    masking = random_masking(2000, 12, 2, torch.Generator().manual_seed(3), "cpu", used=6, brain=brain)
    assert masking.ids.shape == (2000, 6)
    drawn = torch.zeros(2000, 12).scatter_(1, masking.ids, 1.0)
    assert (drawn.sum(dim=1) == 6).all()  # no token twice
    assert (drawn[:1000][brain[:1000]] == 1).all()
    assert (drawn[1000:][~brain[1000:]] == 0).all()
    # Brain and other tokens are kept equally often: 2 of 6.
    kept = torch.zeros(2000, 12).scatter_(1, masking.ids_keep, 1.0)[:1000].mean(dim=0)
    torch.testing.assert_close(kept[[1, 4, 5, 7]], torch.full((4,), 1 / 3), atol=5 * (2 / 9 / 1000) ** 0.5, rtol=0)


def test_fixed_masks_belong_to_their_seeds_whatever_the_batch():
    model, volumes = small(), random_volumes(3)
    together = model.fixed_masking(volumes, [7, 8, 9]).mask(12)
    assert torch.equal(together[1:2], model.fixed_masking(volumes[1:2], [8]).mask(12))
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
    masking = model.fixed_masking(volumes, [4, 5])
    _, prediction = model.forward_masked(volumes, masking)
    before, after, mask = patchify(volumes), patchify(model.reconstruct(volumes, masking)), masking.mask(12)
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


@pytest.mark.parametrize("options", [{}, {"cls_token": True}, {"cls_token": True, "registers": 2}], ids=str)
def test_encode_is_the_encoder_on_all_tokens_in_order(options):
    model, volumes = small(**options), random_volumes()
    latent = model.forward_encoder(model.patches(volumes), torch.arange(12).expand(2, -1))
    encoded = model.encode(volumes)
    assert encoded.shape == (2, 12, 48)
    torch.testing.assert_close(encoded, latent[:, len(latent[0]) - 12 :])


def test_foreground_features_lie_where_the_brain_is():
    model, volumes = small(foreground_tokens=4), torch.zeros(1, 1, *SHAPE)
    volumes[:, :, 16:, 16:32] = torch.randn(1, 1, 16, 16, 32)  # tokens 8 and 9 of (2, 3, 2)
    encoded = model.encode(volumes)
    assert encoded.shape == (1, 12, 48)
    used = encoded.abs().sum(dim=-1)[0] > 0
    assert used.nonzero()[:, 0].tolist() == [0, 1, 8, 9]  # filled up with the first of the others
    _, _, mask = model(volumes, torch.Generator().manual_seed(0))
    assert mask.sum() == 3  # of the 4 used


def test_brain_weighted_loss_counts_voxels_of_brain():
    model = small(brain_weighted_loss=True)
    patches = torch.zeros(1, 3, 4096)
    patches[0, 0] = 1.0
    patches[0, 1, :1024] = 2.0
    prediction = torch.zeros(1, 3, 4096)
    prediction[0, 2] = 100.0  # wrong where there is no brain: does not count
    expected = (1.0 * 1.0 + 0.25 * (4.0 / 4)) / 1.25
    torch.testing.assert_close(model.forward_loss(prediction, patches), torch.tensor(expected))


def test_normalised_targets_have_no_mean_and_unit_variance_and_come_back():
    model, volumes = small(norm_pixels=True), 3 * random_volumes() + 5
    target = model.targets(patchify(volumes))
    torch.testing.assert_close(target.mean(dim=-1), torch.zeros(2, 12), atol=1e-5, rtol=0)
    torch.testing.assert_close(target.std(dim=-1), torch.ones(2, 12), atol=1e-4, rtol=0)
    masking = model.fixed_masking(volumes, [1, 2])
    model.head = ShownTarget(gather_tokens(target, masking.ids_masked))
    torch.testing.assert_close(model.reconstruct(volumes, masking), volumes, atol=1e-4, rtol=0)


class ShownTarget(torch.nn.Module):
    """A head that knows the answer."""

    def __init__(self, answer: torch.Tensor):
        super().__init__()
        self.answer = answer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.answer


def test_decoder_sees_every_token_at_its_own_position():
    model = small()
    with torch.no_grad():  # a decoder that passes tokens through
        for module in (model.decoder_blocks[0].attention.out, model.decoder_blocks[0].mlp[2]):
            module.weight.zero_()
            module.bias.zero_()
    masking = random_masking(2, 12, 3, torch.Generator().manual_seed(0), "cpu")
    latent = torch.randn(2, 3, 48, generator=torch.Generator().manual_seed(1))
    decoded = model.forward_decoder(latent, masking)
    positions = model.decoder_positions
    seen = model.decoder_norm(model.decoder_embed(latent) + positions[masking.ids_keep])
    filled = model.decoder_norm(model.mask_token + positions[masking.ids_masked])
    torch.testing.assert_close(decoded, torch.cat([seen, filled], dim=1))


OPTIONS = [
    {},
    {"cls_token": True},
    {"cls_token": True, "registers": 3},
    {"foreground_tokens": 8},
    {"brain_weighted_loss": True},
    {"norm_pixels": True},
    {"qk_norm": True, "qkv_bias": True},
    {"rope": True, "registers": 2},
    {"decoder_hidden": 32},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_trains_under_bfloat16_autocast_with_every_parameter(options):
    model = small(**options)
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
        masking = Masking(*(torch.zeros(1, n, dtype=torch.long) for n in (360, 840)))
    counter = FlopCounterMode(display=False)
    with counter:
        x = model.forward_decoder(model.forward_encoder(patches, masking.ids_keep), masking)
        prediction = model.head(x[:, model.visible :])
        forward = counter.get_total_flops()
        model.forward_loss(prediction, target).backward()
    assert forward == forward_flops(model)
    assert forward == pytest.approx(516e9, rel=0.005)
    # The fused attention kernel recomputes the scores in its backward pass: a half more of attention than counted here.
    assert counter.get_total_flops() == pytest.approx(training_flops(model), rel=0.05)
    assert training_flops(model) == pytest.approx(1.57e12, rel=0.02)


def test_lighter_recipe_costs_a_fifth():
    """Half of the tokens, a decoder of 8 x 512, three quarters masked."""
    light = {"foreground_tokens": 600, "decoder_hidden": 512, "decoder_mlp": 2048, "mask_ratio": 0.75}
    with torch.device("meta"):
        model, paper = MaskedAutoencoder(MAEArchitecture(**light)), MaskedAutoencoder(MAEArchitecture())
    assert (model.used, model.visible) == (600, 150)
    assert training_flops(paper) / training_flops(model) == pytest.approx(5.2, abs=0.2)


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
