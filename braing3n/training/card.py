"""The card of a trained model: what it is, what it was trained on, how it did, what it cost."""

from __future__ import annotations

import platform
import resource
import time
from datetime import UTC, datetime
from importlib import metadata
from typing import TYPE_CHECKING, Any

import torch

import braing3n

if TYPE_CHECKING:
    from braing3n.training.loop import Run


def build_card(
    run: Run, name: str, data_hash: str, architecture: dict[str, Any], checks: list[dict[str, Any]]
) -> dict[str, Any]:
    """The card as docs/data-contract.md lists it, with cost, throughput and peak memory."""
    progress, processes = run.progress, run.processes
    samples = progress.step * run.settings.batch_size
    rate = samples / max(progress.step_seconds, 1e-9)
    speed = speed_figures(run, rate)
    hours = progress.seconds * processes.size / 3600
    return {
        "name": name,
        "architecture": architecture,
        "parameters": sum(p.numel() for p in run.averaged.parameters()),
        "settings": run.settings.model_dump(mode="json"),
        "data_hash": data_hash,
        "training_samples": run.task.n_train,
        "steps": progress.step,
        "epochs": progress.step // run.steps_per_epoch,
        "stopped_early": progress.stopped_early,
        "weights_from": weights_from(run),
        "metrics": final_metrics(progress.history, progress.best_step),
        "checks": checks,
        "device": device_name(processes.device),
        "processes": processes.size,
        "seconds": progress.seconds,
        "gpu_hours": hours if processes.device.type == "cuda" else 0.0,
        "cpu_hours": hours * torch.get_num_threads() if processes.device.type == "cpu" else 0.0,
        "volumes_per_second": rate,
        **speed,
        "peak_memory_bytes": peak_memory(processes.device),
        "versions": versions(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def speed_figures(run: Run, rate: float) -> dict[str, float | None]:
    """Achieved TFLOP/s over all processes, and its share of what the same devices reach on plain matrix products."""
    if run.task.flops_per_sample is None:
        return {"tflop_per_second": None, "model_flop_utilisation": None}
    achieved = rate * run.task.flops_per_sample / 1e12
    precision = torch.bfloat16 if run.settings.precision == "bf16" else torch.float32
    peak = matmul_tflops(run.processes.device, precision) * run.processes.size
    return {"tflop_per_second": achieved, "model_flop_utilisation": achieved / peak}


def matmul_tflops(device: torch.device, dtype: torch.dtype) -> float:
    """TFLOP/s of square matrix products, measured here and now: the peak that utilisation refers to."""
    n, repeats = (8192, 20) if device.type == "cuda" else (1024, 4)
    a = torch.ones(n, n, device=device, dtype=dtype)
    seconds = []
    for _ in range(3):
        synchronise(device)
        began = time.perf_counter()
        for _ in range(repeats):
            a @ a
        synchronise(device)
        seconds.append(time.perf_counter() - began)
    return 2 * n**3 * repeats / min(seconds) / 1e12


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def weights_from(run: Run) -> str:
    averaged = "" if run.ema is None else " (averaged weights)"
    if run.progress.best_step is None:
        return f"last step, nothing to validate on{averaged}"
    return f"step {run.progress.best_step}, lowest validation loss{averaged}"


def final_metrics(history: list[dict], best_step: int | None) -> dict[str, float]:
    """`<split>_<metric>` of the epoch whose weights are kept."""
    steps = {row["step"] for row in history}
    step = best_step if best_step is not None else max(steps, default=0)
    return {f"{row['split']}_{row['metric']}": row["value"] for row in history if row["step"] == step}


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU ({platform.machine()}, {torch.get_num_threads()} threads)"


def peak_memory(device: torch.device) -> int:
    """Peak bytes allocated on the GPU, or resident in this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB


def versions() -> dict[str, str]:
    packages = ("torch", "numpy", "pandas", "safetensors")
    found = {package: metadata.version(package) for package in packages}
    return {"braing3n": braing3n.__version__, "python": platform.python_version(), **found}
