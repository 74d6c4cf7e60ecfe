"""The whole configuration."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from braing3n.config.base import Settings
from braing3n.config.data import (
    AtlasSettings,
    CohortSource,
    IndexSettings,
    PhantomSettings,
    PreprocessSettings,
)
from braing3n.config.training import (
    DiTSettings,
    FrechetSettings,
    GenerateSettings,
    LongitudinalSettings,
    MAESettings,
    MemorizationSettings,
    ProbeSettings,
    ReportSettings,
    TokenizerSettings,
)


class Pathvars(Settings):
    """Folders of Snakemake's `<results>`, `<resources>`, `<logs>` and `<benchmarks>`."""

    results: Path = Path("results")
    """Tables, volumes, models, figures and the report."""
    resources: Path = Path("resources")
    """The fetched atlas."""
    logs: Path = Path("logs")
    """One log a job."""
    benchmarks: Path = Path("results/benchmarks")
    """Seconds and peak memory of every job, as Snakemake measures them."""


class Config(Settings):
    pathvars: Pathvars = Pathvars()
    cohorts: dict[str, CohortSource] = Field(default_factory=dict)
    """Name of a definition in config/cohorts/ -> where that cohort lies on this machine."""
    only_cohorts: tuple[str, ...] = ()
    """Restricts a run to these cohorts; empty means all of the index."""
    atlas: AtlasSettings = AtlasSettings()
    index: IndexSettings = IndexSettings()
    preprocess: PreprocessSettings = PreprocessSettings()
    phantom: PhantomSettings = PhantomSettings()
    mae: MAESettings
    tokenizer: TokenizerSettings
    dit: DiTSettings
    longitudinal: LongitudinalSettings
    probe: ProbeSettings = ProbeSettings()
    generate: GenerateSettings = GenerateSettings()
    frechet: FrechetSettings = FrechetSettings()
    memorization: MemorizationSettings = MemorizationSettings()
    report: ReportSettings = ReportSettings()
