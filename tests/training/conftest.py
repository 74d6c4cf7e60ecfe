"""The toy training, as a module and as a process."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from braing3n.cli.launch import TORCHRUN

SCRIPT = Path(__file__).with_name("toy.py")


@pytest.fixture(autouse=True)
def _one_thread():
    """Sums in one order only, so that losses can be compared bit for bit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def toy():
    spec = importlib.util.spec_from_file_location("toy_training", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def start_toy():
    """Start the toy in a process of its own: `start_toy(out, processes=1, env={}, **arguments)` -> Popen."""
    started = []

    def start(out, *, processes: int = 1, env=None, **arguments) -> subprocess.Popen:
        torchrun = ["-m", *TORCHRUN, "--standalone", f"--nproc_per_node={processes}"]
        command = [sys.executable, *(torchrun if processes > 1 else []), str(SCRIPT), str(out), json.dumps(arguments)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **(env or {})}
        started.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()
