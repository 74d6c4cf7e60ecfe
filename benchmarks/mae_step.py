"""One MAE training step at the paper's size: ours beside MONAI's MaskedAutoEncoderViT, same sizes, batch and optimizer.

    python -m benchmarks.mae_step [--batch 2] [--steps 2] [--rounds 2] [--device cpu|cuda]

Each variant runs in a process of its own, so that its peak memory is its own; the fastest step of all rounds counts.
MONAI's class cannot run under bfloat16 autocast (index assignment of unequal types), so ours in bfloat16 is set beside
MONAI's in float32. On two cores this takes about six minutes and 12 GB at batch 2.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import torch

from benchmarks.common import case, finish, own_peak
from braing3n.config.models import MAEArchitecture
from braing3n.geometry import PATCH_SIZE, VOLUME_SHAPE
from braing3n.models.mae import MaskedAutoencoder, training_flops
from braing3n.models.transformer import patchify

VARIANTS = ("ours fp32", "monai fp32", "ours bf16")


def make_step(variant: str, device: torch.device):
    """Model and a function volumes -> loss of one variant."""
    arch = MAEArchitecture()
    if variant.startswith("ours"):
        model = MaskedAutoencoder(arch).to(device)
        generator = torch.Generator(device=device).manual_seed(0)

        def loss(volumes: torch.Tensor) -> torch.Tensor:
            with torch.autocast(device.type, torch.bfloat16, enabled=variant.endswith("bf16")):
                return model(volumes, generator)[0]

        return model, loss

    from monai.networks.nets import MaskedAutoEncoderViT

    model = MaskedAutoEncoderViT(
        in_channels=1,
        img_size=VOLUME_SHAPE,
        patch_size=PATCH_SIZE,
        hidden_size=arch.hidden,
        mlp_dim=arch.mlp,
        num_layers=arch.depth,
        num_heads=arch.heads,
        masking_ratio=arch.mask_ratio,
        decoder_hidden_size=arch.decoder_hidden,
        decoder_mlp_dim=arch.decoder_mlp,
        decoder_num_layers=arch.decoder_depth,
        decoder_num_heads=arch.decoder_heads,
    ).to(device)

    def loss(volumes: torch.Tensor) -> torch.Tensor:
        prediction, mask = model(volumes)
        error = (prediction - patchify(volumes)).square().mean(dim=-1)
        return (error * mask).sum() / mask.sum()

    return model, loss


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def measure(variant: str, batch: int, steps: int, device: torch.device) -> dict[str, float]:
    """Seconds of the fastest step after the first, and peak MiB of forward and backward above the weights."""
    torch.manual_seed(0)
    model, loss = make_step(variant, device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    volumes = torch.randn(batch, 1, *VOLUME_SHAPE, device=device)
    cuda = device.type == "cuda"
    before = torch.cuda.memory_allocated() / 2**20 if cuda else resident_mib()
    seconds, peak = [], 0.0
    for step in range(steps + 1):
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        loss(volumes).backward()
        if step == 0:  # before the optimizer's state exists, which is the same for all
            peak = (torch.cuda.max_memory_allocated() / 2**20 if cuda else own_peak()) - before
        optimizer.step()
        if cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return {"seconds": min(seconds[1:]), "peak_mib": peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--variant", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.variant:
        print(json.dumps(measure(options.variant, options.batch, options.steps, torch.device(options.device))))
        return
    arguments = ["--batch", str(options.batch), "--steps", str(options.steps), "--device", options.device]
    found: dict[str, list[dict[str, float]]] = {variant: [] for variant in VARIANTS}
    for _ in range(options.rounds):  # rounds alternate, so that a disturbance hits all alike
        for variant in VARIANTS:
            command = [sys.executable, "-m", "benchmarks.mae_step", *arguments, "--variant", variant]
            output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            found[variant].append(json.loads(output.splitlines()[-1]))
            print(variant, found[variant][-1], flush=True)
    seconds = {variant: min(run["seconds"] for run in runs) for variant, runs in found.items()}
    peak = {variant: max(run["peak_mib"] for run in runs) for variant, runs in found.items()}
    peer = "MONAI MaskedAutoEncoderViT, float32"
    with torch.device("meta"):
        flops = training_flops(MaskedAutoencoder(MAEArchitecture())) * options.batch
    gpu = options.device == "cuda"
    speed = {"peer": peer, "theirs": seconds["monai fp32"], "unit": "s a step", "larger_is_better": False}
    memory = {"peer": peer, "theirs": peak["monai fp32"], "unit": "MiB above the weights", "larger_is_better": False}
    finish(
        "mae_step_cuda" if gpu else "mae_step",
        [
            case("float32 step", ours=seconds["ours fp32"], goal=1.4, **speed),
            case("bfloat16 step", ours=seconds["ours bf16"], goal=3.0 if gpu else 2.4, **speed),
            case("float32 peak memory", ours=peak["ours fp32"], goal=2.0, **memory),
            case("bfloat16 peak memory", ours=peak["ours bf16"], goal=2.0, **memory),
        ],
        batch=options.batch,
        threads=torch.get_num_threads(),
        device=torch.cuda.get_device_name() if gpu else "cpu",
        tflop_per_second={variant: flops / s / 1e12 for variant, s in seconds.items()},
    )


if __name__ == "__main__":
    main()
