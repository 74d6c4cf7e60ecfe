"""Volumes to a model: the packed store beside MONAI's and torchio's loaders, same volumes, same z-score, one core.

    python -m benchmarks.feed [--volumes 16] [--repeats 3]

Makes phantom volumes on the final grid, archived as the pipeline archives them (float32 .nii.gz, already cropped, which
spares the peers the crop) and packed as it packs them. torchio is installed into an environment of its own under
build/. Rates are volumes a second of processor time on one core with warm page cache; cold rates are of wall time
after the files were dropped from the cache. MONAI's PersistentDataset keeps z-scored float32: twice our bytes, and
nothing left to compute, so that twice its rate is what cold bytes allow. About three minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks.common import case, finish
from braing3n.files import write_nifti
from braing3n.geometry import VOLUME_SHAPE, cropped_affine
from braing3n.phantom.final_grid import write_final_grid_set
from braing3n.volumes.feed import VolumeFeed
from braing3n.volumes.metadata import load_metadata
from braing3n.volumes.store import read_volume

BUILD = Path("build/benchmark-feed")
BATCH = 4
PEERS = ("monai LoadImaged .nii.gz", "torchio .nii.gz", "monai PersistentDataset", "monai CacheDataset (memory)")


def make_volumes(folder: Path, atlas: Path, n: int) -> pd.DataFrame:
    """`n` phantoms as a store and as NIfTI, made once -> metadata with a column `nifti`."""
    path = folder / "metadata" / "volumes.parquet"
    if not path.exists() or len(load_metadata(path)) != n:
        metadata = write_final_grid_set(atlas, folder, n, seed=1, shard_size=n)
        for number, row in metadata.iterrows():
            write_nifti(folder / f"nifti/{number:03d}.nii.gz", read_volume(folder, row), cropped_affine())
    metadata = load_metadata(path)
    return metadata.assign(nifti=[str(folder / f"nifti/{number:03d}.nii.gz") for number in range(n)])


def rate(epoch: Callable[[], Iterable[torch.Tensor]], n: int, repeats: int) -> float:
    """Volumes a second of processor time, the best of `repeats` epochs; every volume is touched."""
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        for volume in epoch():
            volume[..., 80, 96, 80].sum().item()
        seconds.append(time.process_time() - start)
    return n / min(seconds)


def cold_rate(epoch: Callable[[], Iterable[torch.Tensor]], files: Iterable[Path], n: int, repeats: int) -> float:
    """Volumes a second of wall time, the best of `repeats` epochs, each after the files were dropped from the cache."""
    seconds = []
    for _ in range(repeats):
        for path in files:
            with open(path, "rb") as handle:
                os.fsync(handle.fileno())
                os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        start = time.perf_counter()
        for volume in epoch():
            volume[..., 80, 96, 80].sum().item()
        seconds.append(time.perf_counter() - start)
    return n / min(seconds)


def ours(metadata: pd.DataFrame, folder: Path, repeats: int) -> dict[str, float]:
    feed, n = VolumeFeed(metadata, folder), len(metadata)
    batches = [range(start, min(start + BATCH, n)) for start in range(0, n, BATCH)]
    memory = feed.batch(batches[0])

    def z_scored():
        for indices in batches:
            yield feed.batch(indices, out=memory[: len(indices)])

    def opened_anew():  # a mapped file is not dropped from the cache
        anew = VolumeFeed(metadata, folder)
        for indices in batches:
            yield anew.batch(indices, out=memory[: len(indices)])

    stores = [folder / file for file in metadata["store_file"].unique()]
    cold = cold_rate(opened_anew, stores, n, repeats)

    def bytes_only():
        for indices in batches:
            yield feed.stored(np.asarray(indices))

    warm = {"z-scored": rate(z_scored, n, repeats), "bytes for a device": rate(bytes_only, n, repeats)}
    return warm | {"cold": cold}


def peers(metadata: pd.DataFrame, cache: Path, repeats: int) -> dict[str, float]:
    """Runs in the peers' environment."""
    import torchio
    from monai.data import CacheDataset, Dataset, PersistentDataset
    from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, NormalizeIntensityd

    n = len(metadata)
    items = [{"image": path} for path in metadata["nifti"]]
    transform = Compose(
        [
            LoadImaged("image"),
            EnsureChannelFirstd("image"),
            NormalizeIntensityd("image", nonzero=True, channel_wise=True),
        ]
    )
    subjects = torchio.SubjectsDataset(
        [torchio.Subject(image=torchio.ScalarImage(path)) for path in metadata["nifti"]],
        transform=torchio.ZNormalization(masking_method=lambda x: x > 0),
        load_getitem=True,
    )
    monai = {
        PEERS[0]: Dataset(items, transform),
        PEERS[2]: PersistentDataset(items, transform, cache_dir=cache),
        PEERS[3]: CacheDataset(items, transform, num_workers=1, progress=False),
    }
    list(monai[PEERS[2]])  # fills its cache
    rates = {
        name: rate(lambda d=dataset: (d[k]["image"] for k in range(n)), n, repeats) for name, dataset in monai.items()
    }
    cached = monai[PEERS[2]]
    rates["cold"] = cold_rate(lambda: (cached[k]["image"] for k in range(n)), list(cache.iterdir()), n, repeats)
    rates[PEERS[1]] = rate(lambda: (subjects[k]["image"].data for k in range(n)), n, repeats)
    return rates


def peer_python(folder: Path) -> Path:
    """Interpreter of an environment with torchio; torch and MONAI are those of this one, so that both are the same."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        site = subprocess.check_output(
            [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True
        )
        (Path(site.strip()) / "shared.pth").write_text(sysconfig.get_path("purelib") + "\n")
        subprocess.run([python, "-m", "pip", "install", "-q", "torchio==1.2.1"], check=True)
    return python


def gigabytes_per_second(path: Path, cold: bool) -> float:
    """Rate of plain reads of a file: of the disk when `cold`, of the page cache otherwise. Wall time."""
    buffer = bytearray(16 * 2**20)
    with open(path, "rb", buffering=0) as handle:
        if cold:
            os.fsync(handle.fileno())
            os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        start, size = time.perf_counter(), 0
        while read := handle.readinto(buffer):
            size += read
    return size / (time.perf_counter() - start) / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--volumes", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--atlas", type=Path, default=Path("build/test-cache/atlas"), help="of `braing3n atlas fetch`")
    parser.add_argument("--peers", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    metadata = make_volumes(BUILD, options.atlas, options.volumes)
    if options.peers:
        with tempfile.TemporaryDirectory(dir=BUILD) as cache:
            print(json.dumps(peers(metadata, Path(cache), options.repeats)))
        return
    own = ours(metadata, BUILD, options.repeats)
    command = [peer_python(BUILD / "venv"), "-m", "benchmarks.feed", *sys.argv[1:], "--peers"]
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    theirs = json.loads(output.splitlines()[-1])
    goals = {PEERS[0]: 20.0, PEERS[1]: 20.0, PEERS[2]: 3.0, PEERS[3]: 1.0}
    store = BUILD / metadata["store_file"][0]
    size = np.prod(VOLUME_SHAPE) * 2 / 1e9
    limits = {
        f"{name} GB/s": gigabytes_per_second(store, cold) for name, cold in (("disk", True), ("page cache", False))
    }
    finish(
        "feed",
        [
            case(
                peer,
                peer=peer,
                ours=own["z-scored"],
                theirs=theirs[peer],
                unit="volumes/s a core",
                goal=goals[peer],
                larger_is_better=True,
            )
            for peer in PEERS
        ]
        + [
            case(
                "from disk, cold",
                peer=PEERS[2],
                ours=own["cold"],
                theirs=theirs["cold"],
                unit="volumes/s",
                goal=3.0,
                larger_is_better=True,
            )
        ],
        volumes=len(metadata),
        bytes_for_a_device={"volumes/s": own["bytes for a device"], "GB/s": own["bytes for a device"] * size},
        z_scored={"GB/s read": own["z-scored"] * size},
        limits=limits,
    )


if __name__ == "__main__":
    main()
