"""Tests of braing3n.models.monai_weights against MONAI's own class."""

import pytest
import torch

from braing3n.config.models import MAEArchitecture
from braing3n.errors import BrainG3NError
from braing3n.models.mae import MaskedAutoencoder, Masking, gather_tokens, load_mae
from braing3n.models.monai_weights import from_monai, import_monai_file, monai_architecture, to_monai

nets = pytest.importorskip("monai.networks.nets")

SHAPE = (32, 48, 32)  # 12 tokens
HEADS = {"heads": 4, "decoder_heads": 2}


def monai_mae(**changes):
    torch.manual_seed(0)
    sizes = {
        "hidden_size": 48,
        "mlp_dim": 96,
        "num_layers": 3,
        "num_heads": 4,
        "decoder_hidden_size": 24,
        "decoder_mlp_dim": 72,
        "decoder_num_layers": 2,
        "decoder_num_heads": 2,
        **changes,
    }
    return nets.MaskedAutoEncoderViT(1, SHAPE, 16, **sizes).eval()


@torch.no_grad()
def compare(theirs, ours: MaskedAutoencoder) -> None:
    """Same masks for both: MONAI draws its own, so ours is given what it drew."""
    volumes = torch.randn(2, 1, *SHAPE, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(5)
    expected, mask = theirs(volumes)
    torch.manual_seed(5)
    keep = torch.multinomial(torch.ones(2, 12), int(mask.eq(0).sum()) // 2, replacement=False)
    assert mask.gather(1, keep).sum() == 0
    removed = torch.stack([row.nonzero()[:, 0] for row in mask])
    masking = Masking(keep, removed)
    prediction = ours.head(ours.forward_decoder(ours.forward_encoder(ours.patches(volumes), keep), masking))
    torch.testing.assert_close(prediction, gather_tokens(expected, masking.ids), atol=1e-5, rtol=0)
    hidden = theirs.blocks(torch.cat([theirs.cls_token.expand(2, -1, -1), theirs.patch_embedding(volumes)], dim=1))
    torch.testing.assert_close(ours.encode(volumes), hidden[:, 1:], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "changes", [{}, {"proj_type": "perceptron"}, {"qkv_bias": True}, {"pos_embed_type": "learnable"}]
)
def test_imported_weights_compute_what_monai_computes(changes):
    theirs = monai_mae(**changes)
    compare(theirs, from_monai(theirs.state_dict(), volume_shape=SHAPE, **HEADS))


def test_exported_weights_load_strictly_and_compute_the_same():
    theirs = monai_mae()
    ours = from_monai(theirs.state_dict(), volume_shape=SHAPE, **HEADS)
    other = monai_mae()
    for p in other.parameters():
        p.data.zero_()
    other.load_state_dict(to_monai(ours))
    compare(other, ours)


def test_wrapped_checkpoints_and_unused_cross_attention_are_accepted():
    state = {f"module.{key}": value for key, value in monai_mae().state_dict().items()}
    state["module.blocks.0.cross_attn.to_q.weight"] = torch.zeros(48, 48)  # as written before MONAI 1.6
    from_monai(state, volume_shape=SHAPE, **HEADS)


def test_architecture_is_read_from_the_shapes():
    arch = monai_architecture(monai_mae(qkv_bias=True).state_dict(), 4, 2)
    expected = {"hidden": 48, "depth": 3, "mlp": 96, "decoder_hidden": 24, "decoder_depth": 2, "decoder_mlp": 72}
    assert {key: getattr(arch, key) for key in expected} == expected
    assert arch.qkv_bias
    assert arch.cls_token


def test_keys_that_do_not_fit_are_listed():
    state = monai_mae().state_dict()
    state["blocks.1.attn.relative.weight"] = torch.zeros(3)
    del state["decoder_pred.bias"]
    with pytest.raises(BrainG3NError) as caught:
        from_monai(state, volume_shape=SHAPE, **HEADS)
    assert "1 missing: head.bias" in str(caught.value)
    assert "blocks.1.attn.relative.weight" in str(caught.value)


def test_other_state_dicts_are_refused():
    with pytest.raises(BrainG3NError, match="no MONAI MaskedAutoEncoderViT"):
        from_monai({"conv1.weight": torch.zeros(1)})


def test_export_needs_a_cls_token():
    sizes = {"hidden": 48, "mlp": 96, "decoder_hidden": 24, "decoder_mlp": 48, "depth": 1, "decoder_depth": 1}
    model = MaskedAutoencoder(MAEArchitecture(**sizes, **HEADS), SHAPE)
    with pytest.raises(BrainG3NError, match="always has a cls token"):
        to_monai(model)


class Payload:
    """Stands for anything that a pickle could run."""


def test_files_are_read_without_running_code(tmp_path, monkeypatch):
    full = monai_mae().state_dict()
    torch.save({"state_dict": full, "epoch": 3}, tmp_path / "weights.pt")
    monkeypatch.setattr(
        "braing3n.models.monai_weights.from_monai", lambda s, **k: from_monai(s, volume_shape=SHAPE, **k)
    )
    import_monai_file(tmp_path / "weights.pt", tmp_path / "mae", 4, 2)
    assert load_mae(tmp_path / "mae").arch.depth == 3
    torch.save({"state_dict": Payload()}, tmp_path / "hostile.pt")
    with pytest.raises(BrainG3NError, match="without running code"):
        import_monai_file(tmp_path / "hostile.pt", tmp_path / "other")
