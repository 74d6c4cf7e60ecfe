from __future__ import annotations

import pytest
import torch

from braing3n.phantom.anatomy import Anatomy, load_anatomy


@pytest.fixture(scope="session")
def anatomy(atlas_dir) -> Anatomy:
    torch.set_num_threads(1)
    return load_anatomy(atlas_dir)
