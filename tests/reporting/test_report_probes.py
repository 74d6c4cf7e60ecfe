"""The section of the probes on a table whose numbers are known."""

from __future__ import annotations

import pytest

from braing3n.files import write_parquet
from braing3n.reporting.drawing import draw
from braing3n.reporting.page import Fold, Table
from braing3n.reporting.run import Run
from braing3n.reporting.topics import probes
from braing3n.results import results_table

ENCODERS = ("mae", "brainiac", "pca")


def scored(protocol: str, encoder: str, task: str, part: str, metric: str, value: float) -> dict:
    return {
        "table": protocol,
        "encoder": encoder,
        "task": task,
        "slice": part,
        "metric": metric,
        "value": value,
        "ci_low": value - 0.05,
        "ci_high": value + 0.05,
        "n_subjects": 40,
        "n_scans": 50,
    }


@pytest.fixture
def probed(tmp_path) -> Run:
    """Two tasks, three encoders, the slices of a real run, what the paper states, and two encoders left out."""
    rows = []
    for protocol in ("recommended", "published"):
        for position, encoder in enumerate(ENCODERS):
            for part, value in (
                ("pooled", 0.9), ("T1", 0.85), ("T1c", 0.92), ("best modality", 0.91), ("within ADNI", 0.7),
                ("leave one cohort out", 0.6), ("pooled, sex F", 0.88), ("pooled, site A", 0.8),
            ):  # fmt: skip
                for task in ("sex", "idh1"):
                    rows.append(scored(protocol, encoder, task, part, "auc", value - 0.1 * position))
                rows.append(scored(protocol, encoder, "age", part, "r2", value - 0.3 * position))
                rows.append(scored(protocol, encoder, "age", part, "mae", 5.0 + position))
        for other, p in (("brainiac", 0.004), ("pca", 0.2)):
            rows.append(scored(protocol, "mae", "sex", "pooled", f"auc_minus_{other}", 0.1))
            rows.append(scored(protocol, "mae", "sex", "pooled", f"auc_minus_{other}_p_holm", p))
    for encoder, task, part, metric, value, bound in (
        ("mae", "sex", "pooled", "auc", 0.967, None),
        ("mae", "idh1", "T1c", "auc", 0.937, None),
        ("mae", "vendor", "pooled", "auc", 0.94, 0.94),
        ("brainiac", "age", "T1", "mae", 7.33, None),
    ):
        stated = {"table": "paper", "encoder": encoder, "task": task, "slice": part, "metric": metric}
        rows.append(stated | {"value": value, "ci_low": bound})
    rows += [
        {"table": "encoders", "encoder": "brainsegfounder", "metric": "unavailable", "value": 1.0},
        {"table": "encoders", "encoder": "tokenizer-128", "metric": "unavailable", "value": 1.0},
    ]  # fmt: skip
    write_parquet(tmp_path / "tables/probes.parquet", results_table(rows))
    return Run(tmp_path)


def test_the_papers_scores_stand_beside_the_runs(probed):
    (table,) = probes.paper_table(probed)
    assert table.columns == ["task", "encoder", "slice", "metric", "paper", "'published'", "'recommended'", "persons"]
    own = ("0.900", "0.85 to 0.95")
    assert ["sex", "mae", "pooled", "AUC", "0.967", own, own, "40"] in table.rows
    assert ["vendor", "mae", "pooled", "AUC", "> 0.940", "–", "–", "–"] in table.rows
    own = ("0.920", "0.87 to 0.97")
    assert ["idh1", "mae", "T1c", "AUC", "0.937", own, own, "40"] in table.rows
    own = ("6.00", "5.95 to 6.05")
    assert ["age", "brainiac", "T1", "mean absolute error", "7.33", own, own, "40"] in table.rows


def test_the_recommended_protocol_comes_first_and_the_papers_beside_it(probed):
    blocks = probes.score_tables(probed)
    visible = [block.caption for block in blocks if isinstance(block, Table)]
    assert visible[0] == "AUC, protocol 'recommended'"
    assert "AUC, protocol 'published'" in visible
    folds = [block.summary for block in blocks if isinstance(block, Fold)]
    assert folds[:3] == [
        "Protocol 'recommended', by modality",
        "Protocol 'recommended', within a cohort and with a cohort left out",
        "Protocol 'recommended', by sex, age, site and diagnosis",
    ]


def test_every_slice_is_in_one_fold(probed):
    folds = {b.summary.partition(", ")[2]: b for b in probes.score_tables(probed) if isinstance(b, Fold)}
    slices = {name: {row[1] for row in fold.blocks[0].rows} for name, fold in folds.items()}
    assert slices == {
        "by modality": {"T1", "T1c", "best modality"},
        "within a cohort and with a cohort left out": {"within ADNI", "leave one cohort out"},
        "by sex, age, site and diagnosis": {"pooled, sex F", "pooled, site A"},
    }


def test_differences_carry_adjusted_p_values(probed):
    fold = probes.difference_tables(probed)[0]
    assert fold.blocks[0].columns == ["task", "metric", "brainiac", "pca"]
    assert fold.blocks[0].rows == [
        ["sex", "AUC", ("0.100", "0.05 to 0.15, p 0.0040"), ("0.100", "0.05 to 0.15, p 0.20")]
    ]


def test_encoders_without_weights_are_named_with_where_these_are_published(probed):
    texts = [notice.text for notice in probes.unavailable_notice(probed)]
    assert texts[0] == "Not probed, no features: brainsegfounder, tokenizer-128."
    assert len(texts) == 2
    assert "https://github.com/lab-smile/BrainSegFounder" in texts[1]
    assert "UK Biobank's material transfer terms" in texts[1]
    assert "probe.weights.brainsegfounder" in texts[1]


def test_figures_are_drawn_from_the_table(probed):
    draw(probed, ["probes"])
    drawn = {path.name for path in (probed.figures / "probes").glob("*.svg")}
    assert drawn == {
        "forest-recommended.svg", "forest-published.svg", "modalities-recommended.svg", "modalities-published.svg",
    }  # fmt: skip
    forest, published = (
        (probed.figures / f"probes/forest-{name}.svg").read_text() for name in ("recommended", "published")
    )
    assert "the paper" not in forest
    assert "the paper" in published
    heat = (probed.figures / "probes/modalities-recommended.svg").read_text()
    for text in ("T1c", "0.92", "0.85", "–"):
        assert f">{text}<" in heat
