"""Distances against closed forms; extractors against a tiny scripted module in the published layout."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import linalg
from torch import Tensor, nn

from braing3n.config.training import FrechetSettings
from braing3n.errors import BrainG3NError
from braing3n.evaluation.decoded import to_intensities, write_decoded
from braing3n.evaluation.distances import covariance_rank, frechet_distance, kid, volume_kernel
from braing3n.evaluation.extractors import InceptionSlices, central_slices, robust_window
from braing3n.evaluation.frechet import VolumeSet, distances, halves, matched_sample, run_frechet
from braing3n.models.mae import load_mae
from braing3n.models.tokenizer import load_tokenizer
from braing3n.volumes.feed import VolumeFeed


def gaussian(mean, covariance, n: int, seed: int = 0) -> np.ndarray:
    """Vectors whose sample mean and covariance are exactly these."""
    x = np.random.default_rng(seed).normal(size=(n, len(mean)))
    x = (x - x.mean(0)) @ linalg.inv(linalg.cholesky(np.cov(x.T)))
    return x @ linalg.cholesky(covariance) + mean


def test_isotropic_gaussians_have_the_closed_form():
    """|m|^2 + d (s - t)^2."""
    d, s, t = 5, 2.0, 0.5
    x, y = gaussian(np.zeros(d), s**2 * np.eye(d), 200), gaussian(np.full(d, 3.0), t**2 * np.eye(d), 300, 1)
    assert frechet_distance(x, y) == pytest.approx(9 * d + d * (s - t) ** 2, rel=1e-9)


def test_commuting_covariances_have_the_closed_form():
    """|m|^2 + sum (sqrt(a) - sqrt(b))^2 in the common basis."""
    random = np.random.default_rng(3)
    basis, _ = np.linalg.qr(random.normal(size=(4, 4)))
    a, b = np.array([4.0, 1.0, 0.25, 9.0]), np.array([1.0, 1.0, 4.0, 0.01])
    x = gaussian(np.zeros(4), basis @ np.diag(a) @ basis.T, 100)
    y = gaussian(np.array([1.0, 0, 0, 2]), basis @ np.diag(b) @ basis.T, 100, 1)
    assert frechet_distance(x, y) == pytest.approx(5 + ((np.sqrt(a) - np.sqrt(b)) ** 2).sum(), rel=1e-9)


@pytest.mark.parametrize(("n", "m"), [(50, 60), (5, 60), (5, 6)], ids=["full rank", "one singular", "both singular"])
def test_general_covariances_equal_the_matrix_square_root(n, m):
    random = np.random.default_rng(0)
    x, y = random.normal(size=(n, 8)) @ random.normal(size=(8, 8)), random.normal(size=(m, 8)) + 0.3
    product = np.cov(x.T) @ np.cov(y.T)
    root = np.sqrt(np.maximum(linalg.eigvals(product).real, 0)).sum()
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(np.cov(x.T)) + np.trace(np.cov(y.T)) - 2 * root
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(y, x) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)
    assert covariance_rank(x) == min(n - 1, 8)


def test_kernel_of_volumes_is_the_mean_over_their_slices():
    random = np.random.default_rng(0)
    x, y = random.normal(size=(3, 2, 4)), random.normal(size=(2, 5, 4))
    expected = np.mean([(x[1, i] @ y[0, j] / 4 + 1) ** 3 for i in range(2) for j in range(5)])
    assert volume_kernel(x, y)[1, 0] == pytest.approx(expected, rel=1e-5)


def test_kid_is_the_unbiased_statistic():
    random = np.random.default_rng(0)
    x, y = random.normal(size=(6, 1, 3)), random.normal(size=(7, 1, 3)) + 1

    def k(a, b):
        return (a @ b / 3 + 1) ** 3

    def within(z):
        return np.mean([k(z[i, 0], z[j, 0]) for i in range(len(z)) for j in range(len(z)) if i != j])

    expected = within(x) + within(y) - 2 * np.mean([k(a[0], b[0]) for a in x for b in y])
    assert kid(x, y, np.arange(6), np.arange(6, 13), 0, 0)[0] == pytest.approx(expected, rel=1e-5)


def test_kid_of_one_distribution_is_zero_on_average_and_its_interval_covers_it():
    random = np.random.default_rng(0)
    found = [
        kid(random.normal(size=(24, 1, 4)), random.normal(size=(24, 1, 4)), np.arange(24), np.arange(24, 48), 100, i)
        for i in range(60)
    ]
    estimates = np.array([f[0] for f in found])
    assert abs(estimates.mean()) < 3 * estimates.std() / np.sqrt(60)
    covered = np.mean([low <= 0 <= high for _, low, high in found])
    assert covered >= 0.85


def test_kid_leaves_a_persons_own_pairs_out():
    """Copies of a volume under the same person change nothing about the term within a set."""
    random = np.random.default_rng(0)
    x, y = random.normal(size=(8, 1, 3)), random.normal(size=(9, 1, 3))
    once = kid(x, y, np.arange(8), np.arange(8, 17), 0, 0)[0]
    twice = kid(np.repeat(x, 2, axis=0), y, np.repeat(np.arange(8), 2), np.arange(8, 17), 0, 0)[0]
    assert twice == pytest.approx(once, rel=1e-6)


class Scripted(nn.Module):
    """The call of the published file: images (N, 3, H, W) in 0..255, `return_features`."""

    def forward(self, img: Tensor, return_features: bool = False) -> Tensor:
        pooled = img.float().mean(dim=(2, 3))  # (N, 3)
        top = img.float().amax(dim=(2, 3))
        size = torch.full((img.shape[0], 1), float(img.shape[3]))
        return torch.cat([pooled, top, size], dim=1) if return_features else pooled


@pytest.fixture(scope="module")
def scripted(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "inception-2015-12-05.pt"
    torch.jit.script(Scripted()).save(str(path))
    return path


def volumes(n: int, seed: int = 0) -> Tensor:
    z = torch.randn(n, 1, 32, 48, 32, generator=torch.Generator().manual_seed(seed))
    z[:, :, :8] = 0
    return z


def test_inception_is_called_as_published(scripted):
    window = (-2.0, 2.0)
    found = InceptionSlices(scripted, 5, "cpu").features(volumes(2), window)
    assert found.shape == (2, 15, 7)
    assert (found[..., 6] == 299).all()
    assert found[..., 3:6].max() <= 255
    assert (found[..., 0] == found[..., 1]).all()  # grey as RGB
    axial = central_slices(volumes(2), 5, window)[2]  # (2, 5, 32, 48)
    # Resizing keeps the mean but for the borders.
    np.testing.assert_allclose(found[:, 10:, 0], axial.mean(dim=(2, 3)) * 255, rtol=0.02)


def test_features_do_not_depend_on_the_batch(scripted):
    extractor, v = InceptionSlices(scripted, 3, "cpu"), volumes(4)
    together = extractor.features(v, (-2, 2))
    apart = np.concatenate([extractor.features(v[i : i + 1], (-2, 2)) for i in range(4)])
    np.testing.assert_allclose(together, apart, atol=1e-4)


def test_slices_are_central_and_share_one_window():
    v = torch.zeros(1, 1, 10, 12, 10)
    v[0, 0] = torch.arange(1.0, 11)[:, None, None] / 10  # rises along x
    sagittal, coronal, axial = central_slices(v, 2, (0.0, 2.0))
    assert (sagittal.shape, coronal.shape, axial.shape) == ((1, 2, 12, 10), (1, 2, 10, 10), (1, 2, 10, 12))
    assert sagittal[0, 0].unique().item() == pytest.approx(0.25)
    assert sagittal[0, 1].unique().item() == pytest.approx(0.3)
    assert robust_window(v) == (pytest.approx(0.1), pytest.approx(1.0))


def test_missing_and_foreign_weights_are_named(tmp_path):
    with pytest.raises(BrainG3NError, match="Inception weights are missing"):
        InceptionSlices(tmp_path / "none.pt", 5)
    (tmp_path / "text.pt").write_text("not a network")
    with pytest.raises(BrainG3NError, match="is not a TorchScript module"):
        InceptionSlices(tmp_path / "text.pt", 5)


def sets(n: int = 12) -> dict[str, VolumeSet]:
    random = np.random.default_rng(0)
    persons = np.array([f"p{i // 2}" for i in range(n)])
    real = random.normal(size=(n, 6, 5))
    return {
        "real": VolumeSet(real, persons),
        "reconstructed": VolumeSet(real + 0.1 * random.normal(size=real.shape), persons),
        "generated": VolumeSet(random.normal(size=(n, 6, 5)) + 1, np.array([f"g{i}" for i in range(n)])),
    }


def test_every_pair_and_view_has_its_rows():
    rows = pd.DataFrame(distances("x", ("sagittal", "coronal", "axial"), sets(), FrechetSettings()))
    assert rows["task"].nunique() == 4
    assert set(rows["slice"]) == {"pooled", "sagittal", "coronal", "axial"}
    value = rows.set_index(["task", "slice", "metric"])["value"]
    assert value["reconstructed vs real", "pooled", "frechet"] < value["generated vs real", "pooled", "frechet"]
    assert value["real vs real", "pooled", "n_first"] == value["real vs real", "pooled", "n_second"] == 6
    assert value["generated vs real", "axial", "dimension"] == 5


def test_halves_share_no_person():
    persons = np.array(list("aabbccdd"))
    first, second = halves(persons, 0)
    assert not set(persons[first]) & set(persons[second])
    assert sorted([*first, *second]) == list(range(8))


def test_real_volumes_follow_the_generated_modalities_and_not_the_order():
    metadata = pd.DataFrame(
        {
            "volume_id": [f"{i:03d}" for i in range(60)],
            "person_id": [f"p{i}" for i in range(60)],
            "modality": ["T1", "T2", "FLAIR"] * 20,
        }
    )
    wanted = pd.Series(["T1", "T1", "T1", "T2"])
    sample = matched_sample(metadata, wanted, 20, 0)
    assert sample["modality"].value_counts().to_dict() == {"T1": 15, "T2": 5}
    again = matched_sample(metadata.sample(frac=1, random_state=1), wanted, 20, 0)
    assert again["volume_id"].tolist() == sample["volume_id"].tolist()


def test_whole_audit_runs_on_generated_volumes(trained, tiny, scripted, tmp_path, monkeypatch):
    """Reconstructions stand in for generated volumes: distances are then those of reconstructions to themselves."""
    monkeypatch.setattr("braing3n.evaluation.frechet.RESAMPLES", 20)
    rows = trained.metadata[trained.metadata["modality"] == "T1"].reset_index(drop=True)
    encoder, decoder = load_mae(trained.mae), load_tokenizer(trained.tokenizer)
    feed = VolumeFeed(rows, trained.results)
    volumes = []
    for i in range(len(rows)):
        with torch.no_grad():
            z = decoder(encoder.encode(feed.batch([i])))[0, 0].numpy()
        volumes.append(to_intensities(z, rows["mean"][i] / rows["std"][i]))
    write_decoded(tmp_path / "same.npy", rows[["volume_id", "modality"]], volumes, tiny.SHAPE)
    settings = FrechetSettings(inception_weights=scripted, n_real=len(rows))
    table = run_frechet(trained.metadata, trained.results, tmp_path, trained.mae, trained.tokenizer, settings)
    value = table.set_index(["encoder", "task", "slice", "metric"])["value"]
    for extractor in ("inception", "mae"):
        same = value[extractor, "generated vs reconstructed", "pooled", "frechet"]
        assert same < 0.02 * value[extractor, "reconstructed vs real", "pooled", "frechet"]
    assert value["mae", "generated vs real", "pooled", "n_first"] == len(rows)
    without = FrechetSettings(n_real=len(rows))
    table = run_frechet(trained.metadata, trained.results, tmp_path, trained.mae, trained.tokenizer, without)
    assert table[table["encoder"] == "inception"]["metric"].tolist() == ["unavailable"]
