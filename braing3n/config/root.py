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
    resources: Path = Path("resources")
    logs: Path = Path("logs")
    benchmarks: Path = Path("results/benchmarks")


class Config(Settings):
    pathvars: Pathvars = Pathvars()
    cohorts: dict[str, CohortSource] = Field(default_factory=dict)
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
