"""Training, sampling and evaluation settings (paper, Appendix C and section 3)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from braing3n.config.base import Settings
from braing3n.config.models import ConditionVocabulary, DiTArchitecture, MAEArchitecture, TokenizerArchitecture


class TrainSettings(Settings):
    """One set of names for all four trainings."""

    epochs: int = Field(..., ge=1)
    batch_size: int = Field(..., ge=1)
    """Volumes a step over all processes."""
    micro_batch_size: int | None = Field(None, ge=1)
    """Volumes a forward pass on one process; gradients are accumulated up to `batch_size`."""
    learning_rate: float = Field(1e-4, gt=0)
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = Field(0.05, ge=0)
    warmup_fraction: float = Field(0.05, ge=0, lt=1)
    final_lr_fraction: float = Field(0.0, ge=0, le=1)
    schedule: Literal["cosine", "constant"] = "cosine"
    clip_norm: float | None = Field(None, gt=0)
    ema_decay: float | None = Field(None, gt=0, lt=1)
    patience: int | None = Field(None, ge=1)
    """Epochs without a better validation loss before the training stops."""
    precision: Literal["bf16", "fp32"] = "bf16"
    compile: bool = False
    seed: int = 2025
    validate_every: int = Field(1, ge=1)
    checkpoint_every: int = Field(1, ge=1)
    """Epochs between resume checkpoints."""
    keep_last: int = Field(2, ge=1)
    stop_before_s: float = Field(600.0, ge=0)
    """Seconds before the job's time limit at which training checkpoints and leaves, to be resumed."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    workers: int = Field(2, ge=0)


class MAESettings(Settings):
    model: MAEArchitecture = MAEArchitecture()
    train: TrainSettings


class TokenizerSettings(Settings):
    model: TokenizerArchitecture = TokenizerArchitecture()
    train: TrainSettings
    latent_noise: float = Field(0.0, ge=0)
    """Upper bound of the noise added to z' while the decoder trains (RAE); the paper uses none."""


class TimeSettings(Settings):
    """How training times t in [0, 1] are drawn; t = 0 data, t = 1 noise."""

    distribution: Literal["uniform", "logit-normal"] = "uniform"
    shift: float = Field(1.0, gt=0)
    """t' = shift * t / (1 + (shift - 1) * t), in training and sampling alike; 1 is the paper's."""


class ConditionDropout(Settings):
    """Probabilities of replacing conditions by their null embedding (paper: each on its own at 0.1)."""

    independent: float = Field(0.1, ge=0, le=1)
    joint: float = Field(0.0, ge=0, le=1)
    """All droppable conditions at once; makes the unconditional branch well trained."""


class SamplerSettings(Settings):
    solver: Literal["euler", "heun"] = "euler"
    steps: int = Field(50, ge=1)
    guidance: float = Field(2.0, ge=0)
    batch_size: int = Field(8, ge=1)


def check_never_dropped(never_dropped: tuple[str, ...], conditions: ConditionVocabulary) -> None:
    unknown = set(never_dropped) - set(conditions.names)
    if unknown:
        raise ValueError(f"never_dropped names no condition: {', '.join(sorted(unknown))}")


class DiTSettings(Settings):
    model: DiTArchitecture = DiTArchitecture()
    train: TrainSettings
    conditions: ConditionVocabulary
    time: TimeSettings = TimeSettings()
    dropout: ConditionDropout = ConditionDropout()
    never_dropped: tuple[str, ...] = ("modality",)
    sampler: SamplerSettings = SamplerSettings()

    @model_validator(mode="after")
    def _never_dropped_exist(self):
        check_never_dropped(self.never_dropped, self.conditions)
        return self


class LongitudinalSettings(Settings):
    model: DiTArchitecture = DiTArchitecture()
    train: TrainSettings
    conditions: ConditionVocabulary
    time: TimeSettings = TimeSettings()
    dropout: ConditionDropout = ConditionDropout()
    never_dropped: tuple[str, ...] = ("disease", "horizon")
    cohorts: tuple[str, ...] = ("ADNI",)
    bridge_sigma: float = Field(0.5, ge=0)
    bridge_target: Literal["difference", "exact"] = "difference"
    """Velocity that is learned: follow-up - baseline (paper), or the bridge's own time derivative."""
    sampler: SamplerSettings = SamplerSettings(steps=100, guidance=1.0)
    forecast_baselines: int = Field(64, ge=1)
    horizons_years: tuple[float, ...] = (0.0, 1.0, 2.0, 5.0, 10.0)

    @model_validator(mode="after")
    def _never_dropped_exist(self):
        check_never_dropped(self.never_dropped, self.conditions)
        return self


class ProbeSettings(Settings):
    tasks: Path = Path("config/tasks.yaml")
    encoders: tuple[str, ...] = ("mae", "tokenizer", "untrained", "pca", "demographics", "site")
    """Sources of features; `braing3n/encoders` says which need weights."""
    folds: int = Field(5, ge=2)
    seed: int = 2025
    max_iter: int = 1000
    ridge_alpha: float = 1.0
    bootstrap: int = Field(2000, ge=100)
    min_class_persons: int = Field(10, ge=2)
    """Fewer persons in a class (or fewer than five times this in a regression) leave the cell a dash."""
    one_scan_per_person: bool = False


class GenerateSettings(Settings):
    arms: Path = Path("config/arms.yaml")
    samples_per_arm: int = Field(64, ge=1)
    seed: int = 109


class FrechetSettings(Settings):
    extractors: tuple[Literal["inception", "mae"], ...] = ("inception", "mae")
    inception_weights: Path | None = None
    """TorchScript Inception-V3 (`inception-2015-12-05.pt`); without it the `inception` rows say so."""
    slices_per_view: int = Field(5, ge=1)
    n_real: int = Field(2000, ge=2)
    seed: int = 2025


class MemorizationSettings(Settings):
    neighbours: int = Field(5, ge=1)
    permutations: int = Field(1000, ge=0)
    seed: int = 2025


class ReportSettings(Settings):
    title: str = "BrainG3N"
    mosaic_columns: int = Field(6, ge=1)
    seed: int = 2025
