"""How many levels N4 should have, on the atlas' head from its brain mask: `python -m benchmarks.n4_levels --atlas DIR`.

For every number of levels: what N4 takes for a field where there is none, and how its field correlates with smooth ones
put in. About a minute of one core.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", "1")

import nibabel as nib
import numpy as np
import pandas as pd

from benchmarks.common import finish
from braing3n.config import load_config
from braing3n.files import write_nifti
from braing3n.geometry import SRI24_AFFINE
from braing3n.phantom.fields import bias_field
from braing3n.preprocess.atlas import load_atlas
from braing3n.preprocess.n4 import correct_bias

LEVELS = (1, 2, 3, 4)
FIELDS = ((0.15, 3), (0.20, 1), (0.40, 2))  # amount, seed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--atlas", type=Path, required=True, help="folder that `braing3n atlas fetch` made")
    atlas = load_atlas(parser.parse_args().atlas)
    settings = load_config(["config/config.yaml"]).preprocess.n4
    head = atlas.head.astype(np.float32)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        image, mask, out = (Path(folder) / f"{name}.nii.gz" for name in ("image", "mask", "out"))
        write_nifti(mask, atlas.mask.astype(np.uint8), SRI24_AFFINE, np.uint8)
        for levels in LEVELS:
            chosen = settings.model_copy(update={"iterations": (settings.iterations[0],) * levels})
            row, start = {"levels": levels}, time.process_time()
            for amount, seed in ((0.0, 0), *FIELDS):
                true = bias_field(head.shape, amount, seed, atlas.mask)
                write_nifti(image, head * true, SRI24_AFFINE)
                correct_bias(image, out, mask=mask, settings=chosen, threads=1)
                corrected = np.asarray(nib.load(out).dataobj)
                inside = atlas.mask & (corrected > 0)
                found = np.log((head * true)[inside] / corrected[inside])
                if amount:
                    row[f"correlation_{amount:.0%}"] = float(np.corrcoef(found, np.log(true[inside]))[0, 1])
                else:
                    row["field_where_there_is_none"] = float(found.std())
            rows.append(row | {"cpu_s": (time.process_time() - start) / (1 + len(FIELDS))})
            print(pd.DataFrame(rows).to_string(float_format="%.3f"), flush=True)
    finish("n4_levels", rows, settings=settings.model_dump(mode="json"))


if __name__ == "__main__":
    main()
