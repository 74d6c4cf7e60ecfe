"""Persons with an age, a sex and a disease, and what these do to the head: the effects that later stages should see."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from braing3n.phantom.truth import ScanTruth, SubjectTruth, Tumour, pose


@dataclass(frozen=True)
class Effects:
    """Sizes of the planted effects. Set to zero, an effect is absent.

    They are of the order seen in ageing and Alzheimer's disease, not fitted to a study. `per_year` counts from
    `reference_age`, at which a healthy head is the atlas.
    """

    reference_age: float = 45.0
    ventricle_mm_per_year: float = 0.045
    ventricle_mm_severity: float = 2.0
    cortical_per_year: float = 0.008
    cortical_severity: float = 0.45
    hippocampal_per_year: float = 0.003
    hippocampal_severity: float = 0.7
    lesions_per_year: float = 0.008
    contrast_loss_per_year: float = 0.010
    male_scale: float = 1.03
    """Head size of men; women's is its inverse."""
    dimorphism_mm: float = 0.6
    """Shape by sex, which affine registration does not take away: plus for men, minus for women."""
    deformation_mm: float = 1.5
    person_spread: float = 1.0
    """Differences between persons of equal age, sex and disease, as a multiple of the usual ones."""


@dataclass(frozen=True)
class Person:
    """What stays the same at every visit."""

    sex: str
    """M or F."""
    seed: int
    """Of the individual deformation."""
    ventricle_mm: float
    cortical: float
    hippocampal: float
    lesions: float
    contrast_loss: float
    scale: tuple[float, float, float]
    shear: tuple[float, float, float]


@dataclass(frozen=True)
class Site:
    """A scanner: who made it, and how its images look."""

    name: str
    vendor: str
    model: str
    field_strength: float
    gain: float = 800.0
    gamma: float = 1.0
    noise: float = 0.03
    bias: float = 0.25


def draw_person(sex: str, rng: np.random.Generator, effects: Effects | None = None) -> Person:
    """A person with individual traits, none of them dependent on age or disease."""
    effects = effects or Effects()
    spread = effects.person_spread
    size = effects.male_scale if sex == "M" else 1 / effects.male_scale
    return Person(
        sex=sex,
        seed=int(rng.integers(2**31)),
        ventricle_mm=spread * rng.normal(0, 0.4),
        cortical=spread * rng.normal(0, 0.04),
        hippocampal=spread * rng.normal(0, 0.04),
        lesions=spread * rng.normal(0, 0.08),
        contrast_loss=spread * rng.normal(0, 0.05),
        scale=tuple(size * np.exp(spread * rng.normal(0, 0.025, 3))),
        shear=tuple(spread * rng.normal(0, 0.01, 3)),
    )


def head_at(
    person: Person,
    age: float,
    severity: float,
    affine: np.ndarray,
    effects: Effects | None = None,
    tumour: Tumour | None = None,
) -> SubjectTruth:
    """The head of a person at an age (years) and severity of Alzheimer's disease (0 healthy, 0.5 MCI, 1 AD)."""
    effects = effects or Effects()
    years = age - effects.reference_age
    since_twenty = max(age - 20.0, 0.0)
    return SubjectTruth(
        affine=affine,
        deformation_mm=effects.deformation_mm,
        deformation_seed=person.seed,
        dimorphism_mm=effects.dimorphism_mm if person.sex == "M" else -effects.dimorphism_mm,
        ventricle_mm=float(
            np.clip(
                effects.ventricle_mm_per_year * years + effects.ventricle_mm_severity * severity + person.ventricle_mm,
                *VENTRICLE_MM,
            )
        ),
        cortical_atrophy=_fraction(
            effects.cortical_per_year * since_twenty + effects.cortical_severity * severity + person.cortical
        ),
        hippocampal_atrophy=_fraction(
            effects.hippocampal_per_year * since_twenty + effects.hippocampal_severity * severity + person.hippocampal
        ),
        white_matter_lesions=_fraction(effects.lesions_per_year * max(age - 30.0, 0.0) + person.lesions),
        contrast_loss=_fraction(effects.contrast_loss_per_year * since_twenty + person.contrast_loss),
        tumour=tumour,
    )


VENTRICLE_MM = (-2.0, 4.5)  # beyond, the displacement would fold


def _fraction(value: float) -> float:
    return float(np.clip(value, 0, 1))


def head_pose(person: Person, rng: np.random.Generator, rotation_deg: float = 6.0, shift_mm: float = 5.0) -> np.ndarray:
    """Where the head lies in the scanner on one day: native RAS+ mm -> SRI24 RAS+ mm."""
    return pose(rng.normal(0, rotation_deg / 2, 3), rng.normal(0, shift_mm / 2, 3), person.scale, person.shear)


def draw_scan(site: Site, modality: str, rng: np.random.Generator, **truth) -> ScanTruth:
    """An acquisition at a site; noise, bias and gain vary a little from scan to scan."""
    return ScanTruth(
        modality=modality,
        seed=int(rng.integers(2**31)),
        noise=site.noise * float(rng.uniform(0.85, 1.15)),
        bias=site.bias * float(rng.uniform(0.8, 1.2)),
        gain=site.gain * float(rng.uniform(0.9, 1.1)),
        gamma=site.gamma,
        **truth,
    )


def diagnosis_of(severity: float) -> str:
    """HC, MCI or AD."""
    return "HC" if severity < 0.25 else "MCI" if severity < 0.7 else "AD"


def draw_scores(severity: float, rng: np.random.Generator) -> dict[str, int | float]:
    """MMSE, MoCA, global CDR, sum of boxes and GDS as a severity would bring them. GDS is unrelated to it."""
    mmse = np.clip(29.2 - 8.0 * severity + rng.normal(0, 0.8), 0, 30)
    moca = np.clip(27.0 - 10.0 * severity + rng.normal(0, 1.2), 0, 30)
    cdr = 0.0 if severity < 0.25 else 0.5 if severity < 0.8 else 1.0
    boxes = np.round(2 * np.clip(5.5 * severity + rng.normal(0, 0.4), 0, 18)) / 2 if cdr else 0.0
    return {
        "mmse": round(mmse),
        "moca": round(moca),
        "cdr": cdr,
        "cdr_boxes": float(boxes),
        "gds": int(rng.integers(0, 6)),
    }


def spread_ages(n: int, low: float, high: float, rng: np.random.Generator) -> np.ndarray:
    """Ages that cover [low, high] evenly, in random order."""
    return rng.permutation(low + (high - low) * (np.arange(n) + rng.uniform(0.2, 0.8, n)) / max(n, 1))
