"""Generated arms: files as the data contract lists them, noise shared by all arms, wrong requests refused at once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from braing3n.config import load_config
from braing3n.config.training import GenerateSettings
from braing3n.errors import BrainG3NError
from braing3n.evaluation.decoded import brain_mask, decoded_feed, to_intensities, typical_offset
from braing3n.evaluation.generate import generate_arms, load_arms
from braing3n.evaluation.sampling import load_flow
from braing3n.files import sha256_of
from braing3n.models.conditions import requested_conditions
from braing3n.models.weights import WEIGHTS
from braing3n.volumes.latents import read_latents

CONFIG = Path(__file__).parents[2] / "config"
ARMS = {
    "old": {"modality": "T1", "age": 80},
    "old_again": {"modality": "T1", "age": 80},
    "other": {"modality": "T2", "sex": "M"},
    "null": {"modality": "T1", "sex": None, "age": None},
}


def generate(trained, tiny, out, arms=ARMS, tokenizer=None, **settings):
    file = out / "arms.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump({"arms": arms}))
    generate_arms(
        file,
        trained.mae,
        tokenizer or trained.tokenizer,
        trained.dit,
        trained.metadata,
        GenerateSettings(**{"samples_per_arm": 2, "seed": 109, **settings}),
        tiny.SAMPLER,
        out / "generated",
    )
    return out / "generated"


@pytest.fixture(scope="module")
def generated(trained, tiny, tmp_path_factory):
    return generate(trained, tiny, tmp_path_factory.mktemp("generate"))


def latents(generated, trained, arm):
    return read_latents(generated / f"{arm}.safetensors", sha256_of(trained.tokenizer / WEIGHTS))


def test_files_of_an_arm(generated, trained):
    assert sorted(path.name for path in generated.iterdir()) == sorted(
        f"{arm}.{ending}" for arm in ARMS for ending in ("npy", "parquet", "safetensors")
    )
    feed, table = decoded_feed(generated / "old.parquet")
    assert json.loads(table["conditions"].iloc[0]) == ARMS["old"]
    assert table["seed"].tolist() == [109, 109]
    assert table["guidance"].tolist() == [2.0, 2.0]
    assert feed.batch([0, 1]).shape == (2, 1, 32, 48, 32)
    rows, raw = latents(generated, trained, "old")
    assert rows.index.tolist() == table["volume_id"].tolist()
    assert raw.shape == (2, 12, 6)


def test_volumes_are_decoded_from_the_latents_beside_them(generated, trained):
    """z = stored * scale - offset where there is brain, of a tokenizer that decodes the stored (float16) latents."""
    flow = load_flow(trained.dit, trained.tokenizer, torch.device("cpu"))
    offset = typical_offset(trained.metadata, "T1")
    _, table = decoded_feed(generated / "old.parquet")
    stored = np.load(generated / "old.npy", mmap_mode="r")
    for k, z in enumerate(flow.decode(latents(generated, trained, "old")[1])):
        intensities = stored[k] * table["scale"].iloc[k]
        inside = (stored[k] > 0) & (z + offset > 0)
        np.testing.assert_allclose(intensities[inside], (z + offset)[inside], atol=0.02)


def test_equal_conditions_give_equal_samples_and_others_do_not(generated, trained):
    old, again, other = (latents(generated, trained, arm)[1] for arm in ("old", "old_again", "other"))
    assert torch.equal(old, again)
    assert not torch.equal(old, other)
    assert not torch.equal(old[0], old[1])


def test_sample_depends_on_its_number_and_not_on_how_many_there_are(trained, tiny, generated, tmp_path):
    more = generate(trained, tiny, tmp_path, {"old": ARMS["old"]}, samples_per_arm=5)
    first = latents(generated, trained, "old")[1]
    torch.testing.assert_close(latents(more, trained, "old")[1][:2], first, atol=1e-3, rtol=1e-3)


def test_guidance_leaves_the_null_arm_alone(trained, tiny):
    """Where everything that may be null is null, both branches of the guidance are equal."""
    flow = load_flow(trained.dit, trained.tokenizer, torch.device("cpu"))
    noise = torch.randn(2, 12, 6, generator=torch.Generator().manual_seed(0))
    conditions = requested_conditions([ARMS["null"]] * 2, flow.dit.vocabulary)
    weak, strong = (flow.sample(noise, conditions, tiny.SAMPLER.model_copy(update={"guidance": s})) for s in (1.0, 5.0))
    torch.testing.assert_close(weak, strong, atol=1e-4, rtol=1e-4)


def test_wrong_arm_is_refused_before_any_is_drawn(trained, tiny, tmp_path):
    with pytest.raises(BrainG3NError, match="no such class of modality"):
        generate(trained, tiny, tmp_path, {"fine": {"modality": "T1"}, "wrong": {"modality": "PET"}})
    assert not (tmp_path / "generated").exists()


def test_transformer_and_tokenizer_must_belong_together(trained, tmp_path, tiny):
    other = tmp_path / "tokenizer"
    shutil.copytree(trained.tokenizer, other)
    content = bytearray((other / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (other / WEIGHTS).write_bytes(bytes(content))
    with pytest.raises(BrainG3NError, match="another tokenizer's latents"):
        generate(trained, tiny, tmp_path, tokenizer=other)


@pytest.mark.parametrize("content", ["arms: {}", "arms: {../evil: {modality: T1}}", "arms: {a: {age: [1]}}", "a: 1"])
def test_wrong_arms_files_are_refused(tmp_path, content):
    (tmp_path / "arms.yaml").write_text(content)
    with pytest.raises(BrainG3NError, match="arms"):
        load_arms(tmp_path / "arms.yaml")


@pytest.mark.parametrize(("name", "count"), [("arms.yaml", 17), ("arms-demo.yaml", 4)])
def test_shipped_arms_fit_the_shipped_vocabulary(name, count):
    arms = load_arms(CONFIG / name)
    assert len(arms) == count
    dit = load_config([CONFIG / "config.yaml"]).dit
    requested_conditions(arms.values(), dit.conditions, dit.never_dropped)


def ellipsoid(shape, share):
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    return sum((axis / share) ** 2 for axis in axes) < 1


def test_brain_mask_keeps_tissue_at_zero_inside():
    """A dark rim (-3), then tissue at 0 in most of the brain, in a background at about 0."""
    shape = (64, 72, 64)
    brain, core = ellipsoid(shape, 0.8), ellipsoid(shape, 0.72)
    rng = np.random.default_rng(0)
    z = np.where(brain, -3.0, 0.03 * rng.standard_normal(shape))
    z[core] = np.where(rng.random(shape) < 0.5, 0.0, 0.8)[core]
    found = brain_mask(z)
    dice = 2 * (found & brain).sum() / (found.sum() + brain.sum())
    assert dice > 0.99
    assert found[core].all()


def test_volume_without_contrast_is_stored_as_it_is():
    intensities = to_intensities(np.zeros((16, 16, 16), np.float32), 2.5)
    assert np.all(intensities == 2.5)


def test_intensities_are_empty_outside_and_never_inside():
    shape = (64, 72, 64)
    brain = ellipsoid(shape, 0.8)
    z = np.where(brain, np.where(ellipsoid(shape, 0.4), 1.5, -4.0), 0.0).astype(np.float32)
    intensities = to_intensities(z, 2.0)
    assert np.all(intensities[~brain] == 0)
    assert np.all(intensities[brain] > 0)  # -4 + 2 is below 0, yet it is brain
    assert intensities.max() == pytest.approx(3.5)


def test_typical_offset_is_the_training_median_of_the_modality(trained):
    rows = trained.metadata[(trained.metadata["split"] == "train") & (trained.metadata["modality"] == "T2")]
    assert typical_offset(trained.metadata, "T2") == pytest.approx((rows["mean"] / rows["std"]).median())
    everything = trained.metadata[trained.metadata["split"] == "train"]
    assert typical_offset(trained.metadata, "FLAIR") == pytest.approx((everything["mean"] / everything["std"]).median())
