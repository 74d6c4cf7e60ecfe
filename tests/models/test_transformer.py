"""Tests of braing3n.models.transformer."""

import pytest
import torch
from torch.nn import functional as F

from braing3n.geometry import TOKEN_GRID, VOLUME_SHAPE
from braing3n.models.transformer import (
    Attention,
    Block,
    initialise,
    patchify,
    rotary_angles,
    rotate,
    sincos_positions,
    sincos_scalar,
    unpatchify,
)


def test_patchify_cuts_the_paper_geometry_and_back():
    volumes = torch.arange(2 * 160 * 192 * 160, dtype=torch.float32).reshape(2, 1, *VOLUME_SHAPE)
    patches = patchify(volumes)
    assert patches.shape == (2, 1200, 4096)
    assert torch.equal(unpatchify(patches, TOKEN_GRID), volumes)


def test_tokens_and_voxels_are_in_c_order():
    volumes = torch.randn(1, 1, *VOLUME_SHAPE, generator=torch.Generator().manual_seed(0))
    n, voxel = 789, 1234
    x, y, z = n // 120, n // 10 % 12, n % 10
    cube = volumes[0, 0, 16 * x : 16 * x + 16, 16 * y : 16 * y + 16, 16 * z : 16 * z + 16]
    assert patchify(volumes)[0, n, voxel] == cube[voxel // 256, voxel // 16 % 16, voxel % 16]


def test_patchify_refuses_sides_that_do_not_divide():
    with pytest.raises(ValueError, match="divisible by 16"):
        patchify(torch.zeros(1, 1, 32, 40, 32))


def test_positions_are_sines_and_cosines_of_each_axis():
    positions = sincos_positions((10, 12, 10), 96)
    assert positions.shape == (1200, 96)
    token, k = 10 * 12 * 3 + 10 * 5 + 7, 4  # (3, 5, 7); frequency 10000^(-4/16) = 0.1
    expected = torch.tensor([0.3, 0.5, 0.7])
    torch.testing.assert_close(positions[token, [k, 32 + k, 64 + k]], expected.sin())
    torch.testing.assert_close(positions[token, [16 + k, 48 + k, 80 + k]], expected.cos())


def test_positions_tell_all_tokens_apart():
    assert torch.pdist(sincos_positions((10, 12, 10), 96)).min() > 0.1


def test_positions_hold_the_same_channels_as_monai():
    utils = pytest.importorskip("monai.networks.blocks.pos_embed_utils")
    theirs = utils.build_sincos_position_embedding([3, 4, 2], 36)[0]
    ours = sincos_positions((3, 4, 2), 36)
    # MONAI puts the second axis first.
    torch.testing.assert_close(torch.cat([ours[:, 12:24], ours[:, :12], ours[:, 24:]], 1), theirs, atol=1e-6, rtol=0)


def test_scalar_embedding_at_zero_and_distinct_values():
    embedded = sincos_scalar(torch.tensor([0.0, 0.5, 70.0]), 32)
    assert embedded.shape == (3, 32)
    torch.testing.assert_close(embedded[0], torch.cat([torch.ones(16), torch.zeros(16)]))
    assert torch.pdist(embedded).min() > 0.1


def test_attention_equals_its_definition():
    torch.manual_seed(0)
    attention, x = Attention(24, 4, qkv_bias=True), torch.randn(2, 7, 24)
    q, k, v = attention.qkv(x).reshape(2, 7, 3, 4, 6).permute(2, 0, 3, 1, 4)
    weights = (q @ k.transpose(-1, -2) / 6**0.5).softmax(dim=-1)
    expected = attention.out((weights @ v).transpose(1, 2).reshape(2, 7, 24))
    torch.testing.assert_close(attention(x), expected, atol=1e-6, rtol=1e-5)


def test_qk_norm_bounds_the_scores():
    torch.manual_seed(0)
    attention, x = Attention(24, 4, qk_norm=True), 1e3 * torch.randn(1, 5, 24)
    q, k, _ = attention.qkv(x).reshape(1, 5, 3, 4, 6).permute(2, 0, 3, 1, 4)
    scores = attention.q_norm(q) @ attention.k_norm(k).transpose(-1, -2)
    assert scores.abs().max() <= 6 + 1e-4  # |q| = |k| = sqrt(6)


def test_plain_block_is_pre_norm():
    torch.manual_seed(0)
    block, x = Block(24, 4, 48), torch.randn(2, 7, 24)
    y = x + block.attention(F.layer_norm(x, (24,)))
    expected = y + block.mlp(F.layer_norm(y, (24,)))
    torch.testing.assert_close(block(x), expected)


def test_modulated_block_starts_as_the_identity_and_learns_its_gates():
    torch.manual_seed(0)
    block = Block(24, 4, 48, modulated=True)
    initialise(block)
    x, condition = torch.randn(2, 7, 24), torch.randn(2, 24)
    y = block(x, condition)
    torch.testing.assert_close(y, x, atol=0, rtol=0)
    y.square().sum().backward()
    gates = block.modulation[1].weight.grad.reshape(6, 24, 24).abs().amax(dim=(1, 2))
    assert (gates[[2, 5]] > 0).all()  # the gates open first; shifts and scales follow
    assert (gates[[0, 1, 3, 4]] == 0).all()


def test_modulated_block_follows_its_condition():
    torch.manual_seed(0)
    block, x = Block(24, 4, 48, modulated=True), torch.randn(2, 7, 24)
    assert not torch.allclose(block(x, torch.zeros(2, 24)), block(x, torch.ones(2, 24)))
    with pytest.raises(ValueError, match="needs a condition"):
        block(x)


def test_width_must_divide():
    with pytest.raises(ValueError, match="multiple of 5 heads"):
        Attention(24, 5)


def test_positions_of_other_widths_are_filled_up_with_zeros():
    positions = sincos_positions((3, 4, 2), 512)
    assert positions.shape == (24, 512)
    assert torch.equal(positions[:, :510], sincos_positions((3, 4, 2), 510))
    assert (positions[:, 510:] == 0).all()


@pytest.mark.parametrize("head_dim", [72, 64])
def test_rotary_scores_depend_on_the_offset_alone(head_dim):
    torch.manual_seed(0)
    angles = rotary_angles((10, 12, 10), head_dim)[None].double()
    assert angles.shape == (1, 1200, head_dim // 2)
    q, k = torch.randn(2, 1, 1, 1, head_dim, dtype=torch.float64).expand(2, 1, 1, 1200, head_dim)
    scores = rotate(q, angles)[0, 0] @ rotate(k, angles)[0, 0].T  # (1200, 1200)
    first, same_offset, other_offset = (  # tokens are 120 x + 10 y + z
        scores[143, 524],  # (1, 2, 3) to (4, 4, 4)
        scores[662, 1043],  # (5, 6, 2) to (8, 8, 3)
        scores[143, 534],  # (1, 2, 3) to (4, 5, 4)
    )
    torch.testing.assert_close(first, same_offset, rtol=1e-5, atol=1e-5)
    assert (first - other_offset).abs() > 1e-6
    torch.testing.assert_close(rotate(q, angles).norm(dim=-1), q.norm(dim=-1), rtol=1e-5, atol=0)


def test_attention_without_rotation_is_rotation_by_nothing():
    torch.manual_seed(0)
    attention, x = Attention(24, 4), torch.randn(2, 7, 24)
    torch.testing.assert_close(attention(x, torch.zeros(1, 7, 3)), attention(x))
    assert not torch.allclose(attention(x, torch.rand(2, 7, 3)), attention(x))
