"""Persons: what age, sex and disease do to a head, and the scores that go with it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from braing3n.phantom.people import (
    VENTRICLE_MM,
    Effects,
    Site,
    diagnosis_of,
    draw_person,
    draw_scan,
    draw_scores,
    head_at,
    head_pose,
    spread_ages,
)


@pytest.fixture
def person():
    return draw_person("F", np.random.default_rng(1))


def test_age_and_disease_move_every_effect_the_stated_way(person):
    heads = [head_at(person, age, severity, np.eye(4)) for age, severity in ((30, 0), (60, 0), (60, 0.5), (60, 1.0))]
    for name in ("ventricle_mm", "cortical_atrophy", "hippocampal_atrophy"):
        values = [getattr(head, name) for head in heads]
        assert values == sorted(values)
        assert len(set(values)) == 4
    effects = Effects()
    grown = heads[1].ventricle_mm - heads[0].ventricle_mm
    assert grown == pytest.approx(30 * effects.ventricle_mm_per_year)
    assert heads[1].white_matter_lesions > heads[0].white_matter_lesions
    assert heads[3].white_matter_lesions == heads[1].white_matter_lesions  # age only


def test_effects_stay_in_range(person):
    for age, severity in ((0, 0), (120, 3)):
        head = head_at(person, age, severity, np.eye(4))
        assert VENTRICLE_MM[0] <= head.ventricle_mm <= VENTRICLE_MM[1]
        for name in ("cortical_atrophy", "hippocampal_atrophy", "white_matter_lesions", "contrast_loss"):
            assert 0 <= getattr(head, name) <= 1


def test_men_are_larger_and_shaped_otherwise():
    rng = np.random.default_rng(2)
    women, men = ([draw_person(sex, rng) for _ in range(200)] for sex in "FM")
    size = [np.mean([np.prod(person.scale) for person in group]) for group in (women, men)]
    assert size[1] / size[0] == pytest.approx(1.03**6, rel=0.03)
    assert head_at(men[0], 50, 0, np.eye(4)).dimorphism_mm == -head_at(women[0], 50, 0, np.eye(4)).dimorphism_mm
    alike = draw_person("M", np.random.default_rng(3), replace(Effects(), person_spread=0, male_scale=1))
    assert alike.scale == (1, 1, 1)
    assert alike.ventricle_mm == 0


def test_head_lies_differently_each_day_with_the_same_size(person):
    rng = np.random.default_rng(4)
    first, second = (head_pose(person, rng) for _ in range(2))
    assert not np.allclose(first, second)
    assert np.linalg.det(first) == pytest.approx(np.linalg.det(second))
    assert 1 / np.linalg.det(first) == pytest.approx(np.prod(person.scale))


def test_scores_follow_severity_within_their_scales():
    rng = np.random.default_rng(5)
    drawn = {severity: [draw_scores(severity, rng) for _ in range(200)] for severity in (0.0, 0.5, 1.0)}
    for name, low, high in (("mmse", 0, 30), ("moca", 0, 30), ("cdr", 0, 3), ("gds", 0, 15), ("cdr_boxes", 0, 18)):
        assert all(low <= scores[name] <= high for group in drawn.values() for scores in group)
    means = [np.mean([scores["mmse"] for scores in drawn[severity]]) for severity in (0.0, 0.5, 1.0)]
    assert means[0] > 28 > means[1] > 23 > means[2]
    assert {scores["cdr"] for scores in drawn[0.0]} == {0.0}
    assert [diagnosis_of(severity) for severity in (0.0, 0.5, 1.0)] == ["HC", "MCI", "AD"]


def test_scans_vary_around_their_site():
    site = Site("X", "Siemens", "TrioTim", 3.0, gain=500, gamma=1.1, noise=0.02, bias=0.3)
    scans = [draw_scan(site, "T2", np.random.default_rng(seed)) for seed in range(50)]
    assert {scan.gamma for scan in scans} == {1.1}
    assert np.mean([scan.gain for scan in scans]) == pytest.approx(500, rel=0.05)
    assert np.ptp([scan.noise for scan in scans]) > 0
    assert len({scan.seed for scan in scans}) == 50


def test_ages_are_spread_evenly():
    ages = spread_ages(10, 20, 80, np.random.default_rng(6))
    assert np.array_equal(np.histogram(ages, 10, (20, 80))[0], np.ones(10))  # one in every tenth
    assert ages.min() >= 20
    assert ages.max() <= 80
    assert np.diff(np.sort(ages)).max() < 12
