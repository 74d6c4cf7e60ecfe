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
    """Passes over the training volumes."""
    batch_size: int = Field(..., ge=1)
    """Volumes a step over all processes."""
    micro_batch_size: int | None = Field(None, ge=1)
    """Volumes a forward pass on one process; gradients are accumulated up to `batch_size`."""
    learning_rate: float = Field(1e-4, gt=0)
    """AdamW's highest rate."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's decay rates."""
    weight_decay: float = Field(0.05, ge=0)
    """AdamW's, on matrices only."""
    warmup_fraction: float = Field(0.05, ge=0, lt=1)
    """Part of all steps in which the rate grows linearly from zero."""
    final_lr_fraction: float = Field(0.0, ge=0, le=1)
    """Where the cosine ends, as a part of the highest rate."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Of the rate after the warm-up."""
    clip_norm: float | None = Field(None, gt=0)
    """Largest norm of the gradient; null does not clip."""
    ema_decay: float | None = Field(None, gt=0, lt=1)
    """Of the averaged weights that are validated and saved; null keeps none."""
    patience: int | None = Field(None, ge=1)
    """Epochs without a better validation loss before the training stops."""
    precision: Literal["bf16", "fp32"] = "bf16"
    """bf16 computes under autocast with fp32 weights."""
    compile: bool = False
    """torch.compile, block by block."""
    seed: int = 2025
    """Of initialisation, order and every random choice."""
    validate_every: int = Field(1, ge=1)
    """Epochs between validations."""
    checkpoint_every: int = Field(1, ge=1)
    """Epochs between resume checkpoints."""
    keep_last: int = Field(2, ge=1)
    """Resume checkpoints that are kept."""
    stop_before_s: float = Field(600.0, ge=0)
    """Seconds before the job's time limit at which training checkpoints and leaves, to be resumed."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto takes a GPU when there is one."""
    workers: int = Field(2, ge=0)
    """Threads that read ahead of a GPU."""


class AugmentSettings(Settings):
    """Random changes of training volumes; the paper uses none."""

    flip: float = Field(0.0, ge=0, le=1)
    """Probability of swapping left and right; off since lesions and scanners know their side."""
    rotation_deg: float = Field(0.0, ge=0, le=45)
    """Largest rotation about each axis."""
    scale: float = Field(0.0, ge=0, le=0.5)
    """Largest relative change of size along each axis."""
    shift_voxels: float = Field(0.0, ge=0)
    """Largest shift along each axis."""
    contrast: float = Field(0.0, ge=0, lt=1)
    """Largest relative change of the z-scores."""
    bias: float = Field(0.0, ge=0, lt=1)
    """Largest relative change by a smooth field."""
    intensity_shift: float = Field(0.0, ge=0)
    """Largest shift of the z-scores."""
    noise: float = Field(0.0, ge=0)
    """Standard deviation of noise added to the z-scores."""


class MAESettings(Settings):
    model: MAEArchitecture = MAEArchitecture()
    train: TrainSettings
    augment: AugmentSettings = AugmentSettings()
    balance: tuple[str, ...] = ()
    """Columns, such as cohort and modality, whose combinations are drawn evenly; empty: all volumes as they are."""
    balance_power: float = Field(0.5, ge=0, le=1)
    """1 draws all combinations equally often, 0 as they are; between them, the rare are seen more and repeated less."""


class TokenizerSettings(Settings):
    model: TokenizerArchitecture = TokenizerArchitecture()
    train: TrainSettings
    latent_noise: float = Field(0.0, ge=0)
    """Upper bound of the noise added to z' while the decoder trains (RAE); the paper uses none."""


class TimeSettings(Settings):
    """How training times t in [0, 1] are drawn; t = 0 data, t = 1 noise."""

    distribution: Literal["uniform", "logit-normal"] = "uniform"
    """Of the training times."""
    shift: float = Field(1.0, gt=0)
    """t' = shift * t / (1 + (shift - 1) * t), in training and sampling alike; 1 is the paper's."""


class ConditionDropout(Settings):
    """Probabilities of replacing conditions by their null embedding (paper: each on its own at 0.1)."""

    independent: float = Field(0.1, ge=0, le=1)
    """Each condition on its own."""
    joint: float = Field(0.0, ge=0, le=1)
    """All droppable conditions at once; makes the unconditional branch well trained."""


class SamplerSettings(Settings):
    solver: Literal["euler", "heun"] = "euler"
    """Of the probability-flow ODE."""
    steps: int = Field(50, ge=1)
    """Equal steps in (shifted) time."""
    guidance: float = Field(2.0, ge=0)
    """Scale s of classifier-free guidance; 1 is none."""
    batch_size: int = Field(8, ge=1)
    """Volumes sampled at once."""


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
    """Conditions that guidance keeps."""
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
    """Conditions that guidance keeps."""
    cohorts: tuple[str, ...] = ("ADNI",)
    """Cohorts whose repeated visits are paired."""
    bridge_sigma: float = Field(0.5, ge=0)
    """Scale of the bridge's noise."""
    bridge_target: Literal["difference", "exact"] = "difference"
    """Velocity that is learned: follow-up - baseline (paper), or the bridge's own time derivative."""
    sampler: SamplerSettings = SamplerSettings(steps=100, guidance=1.0)
    forecast_baselines: int = Field(64, ge=1)
    """Held-out baselines that are forecast."""
    horizons_years: tuple[float, ...] = (0.0, 1.0, 2.0, 5.0, 10.0)
    """Years ahead of the baseline."""

    @model_validator(mode="after")
    def _never_dropped_exist(self):
        check_never_dropped(self.never_dropped, self.conditions)
        return self


class ProbeSettings(Settings):
    tasks: Path = Path("config/tasks.yaml")
    """The panel of probes."""
    encoders: tuple[str, ...] = (
        "mae",
        "mae-brain",
        "tokenizer",
        "untrained",
        "pca",
        "regions",
        "demographics",
        "site",
    )
    """Sources of features, compared on the same scans and folds (docs/encoders.md)."""
    weights: dict[str, Path] = Field(default_factory=dict)
    """Published encoder -> its weights file; an encoder without one is reported as unavailable."""
    protocols: tuple[Literal["recommended", "recommended-all-scans", "recommended-combat", "published"], ...] = (
        "recommended",
        "recommended-all-scans",
        "published",
    )
    """Ways to fit and count: docs/probing.md."""
    folds: int = Field(5, ge=2)
    """Stratified folds, grouped by person."""
    seed: int = 2025
    """Of folds and resamples."""
    max_iter: int = Field(1000, ge=1)
    """Iterations of the logistic regression at most; it stops when converged, at about ten."""
    ridge_alpha: float = 1.0
    """Of the published ridge regression; the recommended one chooses its own."""
    balanced: bool = False
    """Weigh classes by the inverse of their frequency in the recommended logistic regression."""
    bootstrap: int = Field(2000, ge=100)
    """Person-cluster resamples for the intervals."""
    min_class_persons: int = Field(10, ge=2)
    """Fewer persons in a class (or fewer than five times this in a regression) leave the cell a dash."""


class GenerateSettings(Settings):
    arms: Path = Path("config/arms.yaml")
    """Named sets of conditions to sample."""
    samples_per_arm: int = Field(64, ge=1)
    """Volumes for each arm, from the same noises."""
    seed: int = 109
    """Of the first noise."""


class FrechetSettings(Settings):
    extractors: tuple[Literal["inception", "mae"], ...] = ("inception", "mae")
    """Feature spaces; mae is our own encoder and favours us."""
    inception_weights: Path | None = None
    """TorchScript Inception-V3 (`inception-2015-12-05.pt`); without it the `inception` rows say so."""
    slices_per_view: int = Field(5, ge=1)
    """Central slices of each of three views."""
    n_real: int = Field(2000, ge=2)
    """Real volumes compared, at most."""
    seed: int = 2025
    """Of the choice of real volumes."""


class MemorizationSettings(Settings):
    neighbours: int = Field(5, ge=1)
    """Nearest real volumes listed for each generated one."""
    permutations: int = Field(1000, ge=0)
    """Of the two-sample test."""
    seed: int = 2025
    """Of the permutations."""


class ReportSettings(Settings):
    title: str = "BrainG3N"
    """Heading of the report."""
    mosaic_columns: int = Field(6, ge=1)
    """Volumes shown of each cohort."""
    seed: int = 2025
    """Of the choice of volumes shown."""
