"""Adapters of published encoders: state dicts of the published names and shapes, independent references, errors."""

from __future__ import annotations

import re
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from braing3n.encoders.checkpoints import under_prefix
from braing3n.encoders.published import BrainIAC, BrainIACv1, BrainSegFounder, MedicalNet, swin
from braing3n.encoders.registry import ENCODERS, NEEDS_WEIGHTS, PUBLISHED, load_encoder, weights_needed
from braing3n.encoders.resnet import DEPTHS, Layout, ResNet3d
from braing3n.encoders.vit import ViT3d
from braing3n.errors import BrainG3NError

SMALL = {"side": 32, "patch": 16, "hidden": 24, "mlp": 48, "depth": 2, "heads": 2}


def random_state(module: nn.Module, seed: int = 0) -> dict[str, Tensor]:
    """Weights of every parameter and statistic, none at its initial value."""
    draw = torch.Generator().manual_seed(seed)
    return {
        k: v if not v.is_floating_point() else torch.rand(v.shape, generator=draw) * 0.1 + (0.5 if "var" in k else 0)
        for k, v in module.state_dict().items()
    }


def shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {k: tuple(v.shape) for k, v in module.state_dict().items()}


def brainiac_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the released ViT-B, written out."""
    block = {
        "norm1.weight": (768,), "norm1.bias": (768,), "norm2.weight": (768,), "norm2.bias": (768,),
        "attn.qkv.weight": (2304, 768), "attn.out_proj.weight": (768, 768), "attn.out_proj.bias": (768,),
        "mlp.linear1.weight": (3072, 768), "mlp.linear1.bias": (3072,),
        "mlp.linear2.weight": (768, 3072), "mlp.linear2.bias": (768,),
    }  # fmt: skip
    return {
        "patch_embedding.position_embeddings": (1, 216, 768),
        "patch_embedding.patch_embeddings.weight": (768, 1, 16, 16, 16),
        "patch_embedding.patch_embeddings.bias": (768,),
        "norm.weight": (768,),
        "norm.bias": (768,),
    } | {f"blocks.{i}.{name}": shape for i in range(12) for name, shape in block.items()}


def test_brainiac_has_the_published_names_and_shapes():
    with torch.device("meta"):
        assert shapes(ViT3d()) == brainiac_shapes()


@pytest.mark.parametrize("prefix", ["backbone.", "backbone.backbone."])
def test_brainiac_loads_strictly_and_equals_monai(tmp_path, prefix):
    from monai.networks.nets import ViT

    reference = ViT(1, 32, 16, hidden_size=24, mlp_dim=48, num_layers=2, num_heads=2).eval()
    state = random_state(reference)
    reference.load_state_dict(state)
    published = {prefix + k: v for k, v in state.items() if "norm_cross_attn" not in k}  # a later MONAI's dead weights
    torch.save({"state_dict": published | {"projection_head.0.weight": torch.zeros(3)}}, tmp_path / "BrainIAC.ckpt")
    encoder = BrainIAC(tmp_path / "BrainIAC.ckpt", **SMALL)
    volumes = torch.rand(2, 1, 40, 48, 40, generator=torch.Generator().manual_seed(1))
    batch = encoder.preprocess(volumes, volumes > 0)
    assert batch.shape == (2, 1, 32, 32, 32)
    assert batch.mean().abs() < 1e-5
    with torch.no_grad():
        tokens = reference(batch)[0]
    found = encoder.features(batch)
    torch.testing.assert_close(found["first"], tokens[:, 0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found["mean"], tokens.mean(1), atol=1e-5, rtol=1e-4)


def resnet_shapes(depth: int, projection: bool) -> dict[str, tuple[int, ...]]:
    """Names and shapes of MedicalNet's files, written out from its block rules."""
    kind, counts = DEPTHS[depth]

    def norm(name: str, c: int) -> dict[str, tuple[int, ...]]:
        fields = ("weight", "bias", "running_mean", "running_var")
        return {f"{name}.{field}": (c,) for field in fields} | {f"{name}.num_batches_tracked": ()}

    result = {"conv1.weight": (64, 1, 7, 7, 7)} | norm("bn1", 64)
    channels = 64
    for stage, (planes, count) in enumerate(zip((64, 128, 256, 512), counts, strict=True), start=1):
        for i in range(count):
            block, out = f"layer{stage}.{i}", planes * (4 if kind == "bottleneck" else 1)
            if kind == "basic":
                convolutions = [(channels, planes, 3), (planes, planes, 3)]
            else:
                convolutions = [(channels, planes, 1), (planes, planes, 3), (planes, out, 1)]
            for n, (a, b, k) in enumerate(convolutions, start=1):
                result |= {f"{block}.conv{n}.weight": (b, a, k, k, k)} | norm(f"{block}.bn{n}", b)
            strided = stage > 1 and i == 0
            if projection and i == 0 and (channels != out or strided):
                result |= {f"{block}.downsample.0.weight": (out, channels, 1, 1, 1)} | norm(
                    f"{block}.downsample.1", out
                )
            channels = out
    return result


@pytest.mark.parametrize("depth", list(DEPTHS))
def test_medicalnet_has_the_published_names_and_shapes(depth):
    projection = depth not in (18, 34)
    with torch.device("meta"):
        assert shapes(ResNet3d(Layout(depth, dilated=True, projection=projection))) == resnet_shapes(depth, projection)


def test_medicalnet_keeps_a_stride_of_eight():
    network = ResNet3d(Layout(10, dilated=True))
    assert network(torch.zeros(1, 1, 32, 48, 32)).shape[1:] == (512, 4, 6, 4)


def reference_resnet10(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """MedicalNet's ResNet-10 in functions: stages 3 and 4 at stride 1 with dilation 2 and 4."""

    def norm(x: Tensor, name: str) -> Tensor:
        mean, var, weight, bias = (state[f"{name}.{f}"] for f in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, mean, var, weight, bias)

    x = F.relu(norm(F.conv3d(x, state["conv1.weight"], stride=2, padding=3), "bn1"))
    x = F.max_pool3d(x, 3, 2, 1)
    for stage, (stride, dilation) in enumerate([(1, 1), (2, 1), (1, 2), (1, 4)], start=1):
        b = f"layer{stage}.0"
        h = F.conv3d(x, state[f"{b}.conv1.weight"], stride=stride, padding=dilation, dilation=dilation)
        h = F.conv3d(F.relu(norm(h, f"{b}.bn1")), state[f"{b}.conv2.weight"], padding=dilation, dilation=dilation)
        if f"{b}.downsample.0.weight" in state:
            x = norm(F.conv3d(x, state[f"{b}.downsample.0.weight"], stride=stride), f"{b}.downsample.1")
        x = F.relu(norm(h, f"{b}.bn2") + x)
    return x


def test_medicalnet_computes_the_dilated_function(tmp_path):
    state = random_state(ResNet3d(Layout(10, dilated=True)))
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "resnet_10_23dataset.pth")
    encoder = load_encoder("medicalnet-10", tmp_path, tmp_path / "resnet_10_23dataset.pth")
    x = torch.randn(1, 1, 32, 32, 32, generator=torch.Generator().manual_seed(0))
    expected = reference_resnet10(state, x).mean(dim=(2, 3, 4))
    torch.testing.assert_close(encoder.features(x)["mean"], expected, rtol=1e-4, atol=1e-4)
    assert (encoder.dimension, encoder.licence) == (512, "MIT")
    assert encoder.keys == f"{len(state)} weights loaded, none missing or unexpected"


def dilated_monai(depth: int) -> nn.Module:
    """MONAI's class with the strides and dilations that MedicalNet has and it has not."""
    from monai.networks.nets import resnet34, resnet50

    shortcut = {"shortcut_type": "A"} if depth == 34 else {"shortcut_type": "B", "bias_downsample": False}
    options = {"spatial_dims": 3, "n_input_channels": 1, "feed_forward": False, "conv1_t_stride": 2}
    network = {34: resnet34, 50: resnet50}[depth](pretrained=False, **options, **shortcut).eval()
    for stage, dilation in ((network.layer3, 2), (network.layer4, 4)):
        first = stage[0]
        for conv in (first.conv1, first.conv2):
            if conv.kernel_size == (3, 3, 3):
                conv.dilation = conv.padding = (dilation,) * 3
            conv.stride = (1, 1, 1)
        if isinstance(first.downsample, nn.Sequential):
            first.downsample[0].stride = (1, 1, 1)
        elif first.downsample is not None:  # shortcut A: a function that is given the stride
            first.downsample.keywords["stride"] = 1
    return network


@pytest.mark.parametrize("depth", [34, 50])
def test_medicalnet_equals_a_patched_monai(tmp_path, depth):
    """Both kinds of block and both kinds of shortcut, through the file as it is published."""
    reference = dilated_monai(depth)
    state = random_state(reference)
    reference.load_state_dict(state)
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "w.pth")
    encoder = MedicalNet(tmp_path / "w.pth", depth=depth)
    x = torch.randn(1, 1, 24, 32, 24, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = reference(x)
    torch.testing.assert_close(encoder.features(x)["mean"], expected, rtol=1e-4, atol=1e-4)


def test_brainiac_v1_loads_strictly_and_equals_monai(tmp_path):
    from monai.networks.nets import resnet50

    options = {"spatial_dims": 3, "n_input_channels": 1, "feed_forward": False, "conv1_t_stride": 2}
    reference = resnet50(pretrained=False, shortcut_type="B", bias_downsample=True, **options).eval()
    state = random_state(reference)
    reference.load_state_dict(state)
    published = {f"backbone.{k}": v for k, v in state.items()} | {"projection.0.weight": torch.zeros(3)}
    torch.save({"state_dict": published}, tmp_path / "BrainIAC.ckpt")
    encoder = BrainIACv1(tmp_path / "BrainIAC.ckpt")
    volumes = torch.rand(1, 1, 20, 24, 20, generator=torch.Generator().manual_seed(1)) * 900 + 50
    batch = encoder.preprocess(volumes, volumes > 0)
    assert batch.shape == (1, 1, 128, 128, 128)
    assert (batch.min(), batch.max()) == (0, 1)
    with torch.no_grad():
        torch.testing.assert_close(
            encoder.features(batch[..., :48, :48, :48])["mean"],
            reference(batch[..., :48, :48, :48]),
            rtol=1e-4,
            atol=1e-4,
        )
    assert encoder.dimension == 2048


@pytest.mark.parametrize("depth", [18, 50])
def test_strided_networks_equal_monai(depth):
    """Without dilation ours is MONAI's: shortcut A for 18, and B with a bias for 50, as BrainIAC v1 has it."""
    from monai.networks.nets import resnet18, resnet50

    options = {"spatial_dims": 3, "n_input_channels": 1, "feed_forward": False, "conv1_t_stride": 2}
    kind = {"shortcut_type": "A"} if depth == 18 else {"shortcut_type": "B", "bias_downsample": True}
    reference = {18: resnet18, 50: resnet50}[depth](pretrained=False, **options, **kind).eval()
    ours = ResNet3d(Layout(depth, dilated=False, projection=depth == 50, projection_bias=True)).eval()
    state = random_state(reference)
    reference.load_state_dict(state)
    ours.load_state_dict(state)
    x = torch.randn(1, 1, 32, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(ours(x).mean(dim=(2, 3, 4)), reference(x), rtol=1e-4, atol=1e-4)


def test_brainsegfounder_loads_its_swin_and_leaves_the_heads(tmp_path):
    sizes = {"embed": 12, "window": 2, "depths": (1, 1, 1, 1), "heads": (1, 1, 2, 2)}
    reference = swin(2, **sizes).eval()
    state = random_state(reference)
    reference.load_state_dict(state)
    published = {f"module.swinViT.{k}": v for k, v in state.items()} | {"module.rotation_head.weight": torch.zeros(4)}
    torch.save({"state_dict": published}, tmp_path / "bsf.pt")
    volumes = torch.rand(1, 1, 32, 32, 32, generator=torch.Generator().manual_seed(0)) * 900
    for channels in ("repeat", "first"):
        encoder = BrainSegFounder(tmp_path / "bsf.pt", channels=channels, **sizes)
        batch = encoder.preprocess(volumes, volumes > 100)
        assert batch.shape[1] == 2
        assert 0.5 <= batch.min() <= batch.max() <= 1
        assert (batch[:, 1] == (batch[:, 0] if channels == "repeat" else 0.5)).all()
        with torch.no_grad():
            deepest = reference(batch, normalize=True)[4]
        torch.testing.assert_close(encoder.features(batch)["mean"], deepest.mean(dim=(2, 3, 4)))
        assert encoder.dimension == deepest.shape[1]


def test_brainsegfounder_recognises_other_releases_by_their_weights(tmp_path):
    """One channel as for ATLAS, and a deeper third stage."""
    sizes = {"embed": 12, "window": 2, "heads": (1, 1, 2, 2)}
    state = random_state(swin(1, depths=(1, 1, 3, 1), **sizes))
    torch.save({"state_dict": {f"module.swinViT.{k}": v for k, v in state.items()}}, tmp_path / "bsf.pt")
    encoder = BrainSegFounder(tmp_path / "bsf.pt", **sizes)
    assert encoder.inputs == 1
    assert encoder.keys.startswith(f"{len(state)} weights loaded")


def test_channel_choice_is_a_name():
    assert PUBLISHED["brainsegfounder-first"][1] == {"channels": "first"}
    with pytest.raises(BrainG3NError, match="expected: repeat or first"):
        BrainSegFounder(None, channels="both")


def test_published_swin_has_the_published_shapes():
    state = shapes(swin(2))
    assert state["patch_embed.proj.weight"] == (48, 2, 2, 2, 2)
    assert state["layers1.0.blocks.0.attn.relative_position_bias_table"] == (2197, 3)
    assert state["layers4.0.blocks.1.attn.relative_position_index"] == (343, 343)
    assert "layers4.0.downsample.reduction.weight" in state


def test_autoencoder_kl_gives_the_mean_of_its_latents(tmp_path):
    import json

    from monai.networks.nets import AutoencoderKL

    architecture = {
        "spatial_dims": 3, "channels": [4, 4], "latent_channels": 3, "num_res_blocks": 1,
        "norm_num_groups": 2, "attention_levels": [False, False],
    }  # fmt: skip
    reference = AutoencoderKL(**architecture).eval()
    torch.save(reference.state_dict(), tmp_path / "model.pt")
    (tmp_path / "card.json").write_text(json.dumps({"architecture": architecture}))
    encoder = load_encoder("autoencoder-kl", tmp_path, tmp_path / "model.pt")
    x = torch.randn(2, 1, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(encoder.features(x)["mean"], reference.encode(x)[0].mean(dim=(2, 3, 4)))


def test_every_architecture_has_an_untrained_control():
    assert {f"{name}-untrained" for name in PUBLISHED} <= set(ENCODERS)
    assert {*PUBLISHED, "autoencoder-kl-untrained"} == NEEDS_WEIGHTS


@pytest.mark.parametrize(
    "make",
    [
        lambda path, **k: BrainIAC(path, **SMALL, **k),
        lambda path, **k: MedicalNet(path, depth=10, **k),
        lambda path, **k: BrainSegFounder(path, embed=12, window=2, depths=(1, 1, 1, 1), heads=(1, 1, 2, 2), **k),
    ],
    ids=["vit", "resnet", "swin"],
)
def test_untrained_control_is_the_same_network_with_fresh_weights(tmp_path, make):
    control, again = make(None, untrained=True), make(None, untrained=True)
    prefix = "swinViT." if isinstance(control, BrainSegFounder) else ""
    torch.save({prefix + k: v for k, v in random_state(control.network).items()}, tmp_path / "w.pth")
    trained = make(tmp_path / "w.pth")
    assert control.name == f"{trained.name}-untrained"
    assert control.keys == "fresh weights, none loaded"
    assert shapes(control.network) == shapes(trained.network)
    volume = torch.rand(1, 1, 32, 32, 32, generator=torch.Generator().manual_seed(0))
    pooled = [e.features(e.preprocess(volume, volume > 0)) for e in (control, again, trained)]
    for pooling in control.poolings:
        fresh, same, other = (part[pooling] for part in pooled)
        assert torch.equal(fresh, same)
        assert torch.isfinite(fresh).all()
        assert not torch.allclose(fresh, other)


def test_untrained_autoencoder_asks_for_its_architecture(tmp_path):
    with pytest.raises(BrainG3NError, match=r"architecture of autoencoder-kl is missing.*probe.weights.autoencoder-kl"):
        load_encoder("autoencoder-kl-untrained", tmp_path, tmp_path / "model.safetensors")


def test_missing_weights_say_where_they_are_published(tmp_path):
    for path in (None, tmp_path / "none.pth"):
        with pytest.raises(
            BrainG3NError, match=r"MedicalNet \(licence: MIT\), put it anywhere and give its path"
        ) as error:
            MedicalNet(path)
        assert "--weights, or in the configuration as probe.weights.medicalnet-50" in str(error.value)


def test_every_encoder_with_weights_says_where_they_are_published():
    for name in NEEDS_WEIGHTS:
        assert "licence: " in weights_needed(name)
    assert weights_needed("brainiac-mean") == weights_needed("brainiac")
    assert [weights_needed(name) for name in ("mae", "mae-brain", "pca", "site", "brainiac-untrained")] == [None] * 5


def test_weights_that_do_not_fit_are_reported_by_key(tmp_path):
    state = random_state(ResNet3d(Layout(10, dilated=True)))
    state.pop("layer2.0.conv1.weight")
    torch.save(state | {"odd": torch.zeros(1)}, tmp_path / "w.pth")
    with pytest.raises(BrainG3NError, match=r"1 missing: layer2.0.conv1.weight \| 1 unexpected: odd"):
        MedicalNet(tmp_path / "w.pth", depth=10)


class Marker:
    """Unpickling it would write a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def test_pickled_code_is_never_run(tmp_path):
    marker = tmp_path / "was-run"
    torch.save({"state_dict": {}, "hyper_parameters": Marker(marker)}, tmp_path / "w.ckpt")
    with pytest.raises(BrainG3NError, match="not run here"):
        MedicalNet(tmp_path / "w.ckpt")
    assert not marker.exists()


def test_documented_conversion_makes_a_file_that_loads(tmp_path):
    """The command of docs/encoders.md, on a checkpoint that holds an object beside its weights."""
    state = random_state(ResNet3d(Layout(10, dilated=True)))
    content = {"state_dict": {f"module.{k}": v for k, v in state.items()}, "hyper_parameters": Fraction(1, 2)}
    torch.save(content, tmp_path / "BrainIAC.ckpt")
    with pytest.raises(BrainG3NError, match=r"convert it once to safetensors, see docs/encoders.md"):
        MedicalNet(tmp_path / "BrainIAC.ckpt", depth=10)
    text = (Path(__file__).parents[2] / "docs/encoders.md").read_text()
    code = re.search(r'python -c "(.*?)"', text, re.DOTALL).group(1).replace("\\\n", "")
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    encoder = MedicalNet(tmp_path / "BrainIAC.safetensors", depth=10)
    assert torch.equal(encoder.network.state_dict()["conv1.weight"], state["conv1.weight"])


def test_what_is_no_checkpoint_is_named(tmp_path):
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(BrainG3NError):
        MedicalNet(tmp_path / "text.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(BrainG3NError, match="holds no state dict"):
        MedicalNet(tmp_path / "list.pth")


def test_prefixes_are_tried_in_order():
    state = {"a.b.x": torch.zeros(1), "head": torch.zeros(1)}
    assert list(under_prefix(state, ("a.b.", "a."))) == ["x"]
    assert list(under_prefix(state, ("c.",))) == ["a.b.x", "head"]
