"""The tokenizer's size and shapes at the paper's widths, its decoder on a small grid, its statistics."""

from __future__ import annotations

import pytest
import torch

from braing3n.config.models import TokenizerArchitecture
from braing3n.errors import BrainG3NError
from braing3n.models.tokenizer import Tokenizer, load_tokenizer, tokenizer_card_architecture
from braing3n.models.weights import save_model
from braing3n.training.flops import forward_flops
from braing3n.training.seeds import generator, seeded

GRID = (2, 3, 2)
SMALL = TokenizerArchitecture(latent=8, widths=(16, 8, 8, 4, 4), blocks_per_level=1, attention_heads=2, groups=4)


def small(grid=GRID) -> Tokenizer:
    with seeded(0):
        return Tokenizer(SMALL, 24, grid)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=generator("cpu", seed))


def test_paper_size_and_geometry():
    with torch.device("meta"):
        tokenizer = Tokenizer(TokenizerArchitecture(), 1152)
        volumes = tokenizer(torch.zeros(1, 1200, 1152))
    decoder = sum(p.numel() for p in tokenizer.decoder.parameters())
    assert decoder == 43_743_105  # the paper's 43.7 M
    assert tokenizer.projection.weight.numel() == 1152 * 32
    assert tokenizer.projection.bias is None
    assert volumes.shape == (1, 1, 160, 192, 160)


def test_paper_decoder_costs_what_its_levels_add_up_to():
    """The five levels' convolutions are 68 + 172 + 345 + 691 + 1384 GFLOP; the rest is upsampling and attention."""
    with torch.device("meta"):
        tokenizer = Tokenizer(TokenizerArchitecture(), 1152)
    flops = forward_flops(tokenizer, (1, 1200, 1152))
    assert 2.66e12 < flops < 3.0e12


def test_decoder_makes_sixteen_voxels_of_a_token():
    assert small()(draw(2, 12, 24)).shape == (2, 1, 32, 48, 32)


def test_tokens_are_laid_out_in_c_order():
    """The first convolution sees token n of a grid (x, y, z) at (n // 6, n // 2 % 3, n % 2)."""
    tokenizer = small()
    seen = []
    tokenizer.decoder.enter.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    latents = torch.arange(12.0).reshape(1, 12, 1).expand(-1, -1, 8)
    tokenizer.decode(latents)
    assert torch.equal(seen[0][0, 3], torch.arange(12.0).reshape(GRID))


def test_decoder_shows_a_token_near_where_it_lies():
    """Without attention only normalisation sees the whole grid: a changed token changes its surroundings most."""
    arch = SMALL.model_copy(update={"attention_levels": ()})
    with seeded(0):
        tokenizer = Tokenizer(arch, 24, (6, 6, 6))
    latents = draw(1, 216, 8)
    other = latents.clone()
    other[0, 0] += 5.0  # the token at (0, 0, 0)
    with torch.no_grad():
        change = (tokenizer.decode(other) - tokenizer.decode(latents)).abs()[0, 0]
    assert change[:16, :16, :16].mean() > 5 * change[-16:, -16:, -16:].mean()


def test_attention_reaches_everywhere():
    attention = next(m for m in small((4, 4, 4)).modules() if type(m).__name__ == "SpatialAttention")
    x = draw(1, 8, 4, 4, 4).requires_grad_()
    attention(x)[0, :, 0, 0, 0].sum().backward()
    assert (x.grad.abs().sum(dim=1) > 0).all()


def test_noise_changes_the_reconstruction_only_when_asked():
    tokenizer, tokens = small(), draw(1, 12, 24)
    assert torch.equal(tokenizer(tokens), tokenizer(tokens, torch.zeros(1, 12, 8)))
    assert not torch.equal(tokenizer(tokens), tokenizer(tokens, draw(1, 12, 8, seed=1)))


def test_normalise_and_back():
    tokenizer = small()
    latents = 3 + 2 * draw(50, 12, 8)
    tokenizer.latent_mean.copy_(latents.mean(dim=(0, 1)))
    tokenizer.latent_std.copy_(latents.std(dim=(0, 1)))
    normalised = tokenizer.normalise(latents)
    torch.testing.assert_close(normalised.mean(dim=(0, 1)), torch.zeros(8), atol=1e-5, rtol=0)
    torch.testing.assert_close(normalised.std(dim=(0, 1)), torch.ones(8), atol=1e-5, rtol=0)
    torch.testing.assert_close(tokenizer.denormalise(normalised), latents)


def test_saved_and_loaded_with_its_statistics(tmp_path):
    tokenizer = small()
    tokenizer.latent_mean.fill_(0.5)
    tokenizer.latent_std.fill_(2.0)
    save_model(tokenizer, {"architecture": tokenizer_card_architecture(tokenizer)}, tmp_path)
    loaded = load_tokenizer(tmp_path)
    tokens = draw(1, 12, 24)
    assert torch.equal(loaded(tokens), tokenizer(tokens))
    assert torch.equal(loaded.latent_std, torch.full((8,), 2.0))
    assert not any(p.requires_grad for p in loaded.parameters())


def test_without_a_card_the_folder_is_named(tmp_path):
    with pytest.raises(BrainG3NError, match=r"card\.json"):
        load_tokenizer(tmp_path)
