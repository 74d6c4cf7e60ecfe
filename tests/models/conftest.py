"""One thread for all model tests: the same sums on every machine, and no contention between test workers."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    torch.set_num_threads(1)
