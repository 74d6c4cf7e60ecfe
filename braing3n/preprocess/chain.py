"""The five steps, as the shard runner sees them: which volumes need them, what they read, where products go.

    convert -> n4 -> mask -> register -> crop

A volume's entry state decides what is left out (no scan is corrected or stripped twice), and its session's anchor, the
T1 where there is one, is the only volume that is masked and registered to the atlas; the others follow it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from braing3n.config import Settings
from braing3n.config.data import ConvertSettings, CropSettings, MaskSettings, N4Settings, RegisterSettings
from braing3n.errors import ExcludeVolume
from braing3n.files import write_json
from braing3n.preprocess import naming
from braing3n.preprocess.records import work_folder
from braing3n.preprocess.steps import Context, Job, Product, Step, Volume, register_step

Inputs = Mapping[str, Path | str]


def describe(context: Context, product: PurePosixPath, **content: Any) -> None:
    """Write the JSON sidecar of a product."""
    write_json(context.output(naming.sidecar_path(product)), content)


def sources(*paths: str | PurePosixPath) -> list[str]:
    return [naming.bids_uri(path) for path in paths]


# --------------------------------------------------------------------------------------------------------- convert


def convert_inputs(job: Job) -> Inputs:
    row, source = job.volume.row, job.context.root / job.volume.row["source_path"]
    files: dict[str, Path | str] = {"source": source}
    if row["source_format"] == "analyze":  # the index names the .hdr; the voxels are in its twin
        ending = ".hdr.gz" if source.name.endswith(".hdr.gz") else ".hdr"
        files["voxels"] = source.with_name(source.name.removesuffix(ending) + ending.replace("hdr", "img"))
    return files | {name: str(row.get(name)) for name in ("source_format", "source_series", "entry_axes")}


def run_convert(job: Job, model: Any) -> Product:
    from braing3n.preprocess.convert import convert

    row, context = job.volume.row, job.context
    out = naming.image_path(row, desc="converted")
    with scratch_folder(context, job.volume) as scratch:
        qc, parameters = convert(
            context.root / row["source_path"],
            context.output(out),
            scratch,
            source_format=row["source_format"],
            settings=context.settings,
            series=row.get("source_series"),
            entry_axes=row.get("entry_axes"),
        )
    describe(context, out, SkullStripped=bool(row["entry_stripped"]), **parameters)
    return Product({"image": out, "native": out}, qc)


@contextlib.contextmanager
def scratch_folder(context: Context, volume: Volume) -> Iterator[Path]:
    """A folder for one volume's intermediate files; a killed run's is removed by the next (lock.remove_leftovers)."""
    folder = work_folder(context.results, "convert", context.cohort, context.shard) / f".tmp{os.getpid()}-{volume.id}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# -------------------------------------------------------------------------------------------------------------- n4


def skip_n4(volume: Volume, anchor: Volume | None, settings: Settings) -> str:
    return "delivered bias-field corrected" if volume.row["entry_bias_corrected"] else ""


def image_input(job: Job) -> Inputs:
    return {"image": job.context.image(job.volume)}


def n4_inputs(job: Job) -> Inputs:
    """The image, and its mask where that was made before (`preprocess.order`)."""
    names = [name for name in ("image", "mask") if name in job.volume.outputs]
    return {name: job.context.image(job.volume, name) for name in names}


def run_n4(job: Job, model: Any) -> Product:
    from braing3n.preprocess.n4 import correct_bias

    volume, context = job.volume, job.context
    out, files = naming.image_path(volume.row, desc="n4"), n4_inputs(job)
    qc = correct_bias(
        files["image"], context.output(out), mask=files.get("mask"), settings=context.settings, threads=context.threads
    )
    stripped = bool(volume.row["entry_stripped"])
    describe(context, out, SkullStripped=stripped, Sources=sources(volume.outputs["image"]))
    return Product({"image": out, "native": out}, qc)


# ------------------------------------------------------------------------------------------------------------ mask


def mask_origin(anchor: Volume, settings: MaskSettings) -> str:
    """Where a session's mask comes from: `provided` by the cohort, or the backend's name.

    Raises:
        ExcludeVolume: there is no way to mask the session.
    """
    from braing3n.preprocess.mask import MODALITIES

    if anchor.row["entry_stripped"] or anchor.row.get("mask_path"):
        return "provided"
    if settings.backend == "provided":
        raise ExcludeVolume(
            f"the session's {anchor} comes neither stripped nor with a mask, and preprocess.mask.backend is 'provided'"
        )
    if anchor.row["modality"] not in MODALITIES[settings.backend]:
        served = ", ".join(MODALITIES[settings.backend])
        raise ExcludeVolume(
            f"the session has no {served}, which is all that {settings.backend} masks; use another "
            "preprocess.mask.backend"
        )
    return settings.backend


def skip_mask(volume: Volume, anchor: Volume | None, settings: Settings) -> str:
    mask_origin(anchor or volume, settings)
    if anchor is None:
        return ""
    return f"uses the mask of its session's {anchor.row['modality']} ({anchor.id}), to which it is aligned"


def mask_inputs(job: Job) -> Inputs:
    row, files = job.volume.row, dict(image_input(job))
    if row.get("mask_path"):
        files["delivered"] = job.context.root / row["mask_path"]
    return files | {"entry_stripped": str(row["entry_stripped"])}


def load_mask(context: Context) -> Any:
    from braing3n.preprocess.mask import load_masker

    return load_masker(context.settings, context.threads)


def run_mask(job: Job, model: Any) -> Product:
    from braing3n.preprocess.mask import provided_mask

    volume, context = job.volume, job.context
    image, origin = context.image(volume), mask_origin(volume, context.settings)
    out = naming.mask_path(volume.row, desc=origin.replace("-", ""))
    if origin == "provided":
        delivered = context.root / volume.row["mask_path"] if volume.row.get("mask_path") else None
        qc = provided_mask(image, delivered, context.output(out))
    else:
        qc = model()(image, context.output(out))
    describe(context, out, Type="Brain", Sources=sources(volume.outputs["image"]))
    stripped = "delivered without skull: its voxels above zero are the mask" if volume.row["entry_stripped"] else ""
    return Product({"mask": out}, qc, skipped=stripped)


def mask_workers(threads: int, settings: MaskSettings) -> tuple[int, int]:
    """deepbet is small and runs one process a core; HD-BET gets all of them (or the GPU) for one process."""
    return (threads, 1) if settings.backend in ("deepbet", "provided") else (1, threads)


# -------------------------------------------------------------------------------------------------------- register


def register_inputs(job: Job) -> Inputs:
    from braing3n.preprocess.atlas import load_atlas

    volume, anchor, context = job.volume, job.anchor, job.context
    if anchor is None:
        atlas = load_atlas(context.atlas)
        return {
            "image": context.image(volume),
            "mask": context.image(volume, "mask"),
            "atlas": atlas.brain_path,
            "atlas_mask": atlas.mask_path,
        }
    return {
        "image": context.image(volume),
        "anchor": context.image(anchor, "native"),
        "anchor_mask": context.image(anchor, "mask"),
        "anchor_transform": context.image(anchor, "transform"),
        "shares_grid": str(volume.row["shares_grid"]),
    }


def run_register(job: Job, model: Any) -> Product:
    from braing3n.preprocess.atlas import load_atlas

    atlas = load_atlas(job.context.atlas)
    product = register_anchor(job, atlas) if job.anchor is None else register_follower(job, atlas)
    anchor = job.anchor or job.volume
    describe(
        job.context,
        product.outputs["image"],
        SkullStripped=True,
        SpatialReference=naming.SPATIAL_REFERENCE,
        Sources=sources(job.volume.outputs["image"], product.outputs["mask"], product.outputs["transform"]),
        SessionAnchor=naming.entities(anchor.row) + "_" + naming.SUFFIX[anchor.row["modality"]],
    )
    if job.anchor is None:
        origin = sources(job.volume.outputs["mask"], product.outputs["transform"])
        reference = naming.SPATIAL_REFERENCE
        describe(job.context, product.outputs["mask"], Type="Brain", SpatialReference=reference, Sources=origin)
    return product


def register_anchor(job: Job, atlas: Any) -> Product:
    """Brain to brain: the anchor's affine to the atlas, and one interpolation."""
    from braing3n.preprocess.qc import volume_qc
    from braing3n.preprocess.register import affine_to_atlas, resample_to_atlas

    volume, context = job.volume, job.context
    image, mask = context.image(volume), context.image(volume, "mask")
    outputs = {
        "image": naming.image_path(volume.row, desc="registered", space=naming.SPACE),
        "mask": naming.mask_path(volume.row, desc=naming.desc_of(volume.outputs["mask"]), space=naming.SPACE),
        "transform": naming.transform_path(volume.row, to=naming.SPACE),
    }
    out = {name: context.output(path) for name, path in outputs.items()}
    settings, threads = context.settings, context.threads
    qc = affine_to_atlas(image, mask, atlas, out["transform"], settings=settings, threads=threads)
    qc |= resample_to_atlas(image, mask, [out["transform"]], atlas, out["image"], out["mask"], settings=settings)
    qc |= volume_qc(out["image"], out["mask"], out["transform"], atlas)
    return Product(outputs, qc)


def register_follower(job: Job, atlas: Any) -> Product:
    """Through the anchor's transform, behind a rigid one unless both were delivered on one grid."""
    from braing3n.preprocess.qc import volume_qc
    from braing3n.preprocess.register import resample_to_atlas, rigid_to_anchor

    volume, anchor, context = job.volume, job.anchor, job.context
    outputs = {
        "image": naming.image_path(volume.row, desc="registered", space=naming.SPACE),
        "mask": PurePosixPath(anchor.outputs["mask"]),
        "transform": PurePosixPath(anchor.outputs["transform"]),
    }
    image, settings, qc = context.image(volume), context.settings, {}
    transforms = [context.image(anchor, "transform")]
    if not volume.row["shares_grid"]:
        outputs["rigid"] = naming.transform_path(volume.row, to=naming.SUFFIX[anchor.row["modality"]])
        rigid = context.output(outputs["rigid"])
        fixed = context.image(anchor, "native")
        qc |= rigid_to_anchor(image, fixed, rigid, settings=settings, threads=context.threads)
        transforms.append(rigid)
    registered, mask = context.output(outputs["image"]), context.image(anchor, "mask")
    qc |= resample_to_atlas(image, mask, transforms, atlas, registered, None, settings=settings)
    qc |= volume_qc(registered, mask, transforms[0], atlas)
    return Product(outputs, qc)


# ------------------------------------------------------------------------------------------------------------ crop


def run_crop(job: Job, model: Any) -> Product:
    from braing3n.preprocess.crop import crop

    volume, context = job.volume, job.context
    if not context.settings.save_nifti:
        qc = crop(context.image(volume), None)
        return Product({"image": PurePosixPath(volume.outputs["image"])}, qc)
    out = naming.image_path(volume.row, desc="preproc", space=naming.SPACE)
    qc = crop(context.image(volume), context.output(out))
    describe(
        context,
        out,
        SkullStripped=True,
        SpatialReference=naming.SPATIAL_REFERENCE,
        Sources=sources(volume.outputs["image"]),
    )
    return Product({"image": out}, qc)


def pack(store: Path, volume_ids: Sequence[str], images: Iterable[Path]) -> None:
    from braing3n.preprocess.crop import pack_store

    pack_store(store, volume_ids, images)


register_step(
    Step("convert", ConvertSettings, convert_inputs, run_convert, reads_previous=False, tools=("nibabel", "dcm2niix"))
)
register_step(Step("n4", N4Settings, n4_inputs, run_n4, skip=skip_n4, tools=("SimpleITK",)))
register_step(
    Step(
        "mask",
        MaskSettings,
        mask_inputs,
        run_mask,
        skip=skip_mask,
        load=load_mask,
        workers=mask_workers,
        by_session=True,
    )
)
register_step(
    Step(
        "register",
        RegisterSettings,
        register_inputs,
        run_register,
        uses_atlas=True,
        by_session=True,
        after_anchor=True,
        tools=("antspyx",),
    )
)
register_step(Step("crop", CropSettings, image_input, run_crop, pack=pack, tools=("nibabel",)))
