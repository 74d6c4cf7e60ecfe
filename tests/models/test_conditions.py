"""Conditions: encoding of tables and requests, dropout frequencies, and embeddings of the three states."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from braing3n.config import load_config
from braing3n.config.models import CategoricalCondition, ConditionVocabulary, ContinuousCondition
from braing3n.errors import BrainG3NError
from braing3n.models.conditions import (
    KNOWN,
    NULL,
    UNKNOWN,
    ConditionEmbedding,
    Conditions,
    drop_conditions,
    droppable,
    encode_conditions,
    null_frequencies,
    requested_conditions,
)
from braing3n.training.seeds import generator, seeded

CONFIG = Path(__file__).parents[2] / "config" / "config.yaml"
VOCABULARY = ConditionVocabulary(
    categorical={
        "disease": CategoricalCondition(column="diagnosis", classes=("HC", "AD")),
        "modality": CategoricalCondition(column="modality", classes=("T1", "T2")),
    },
    continuous={"age": ContinuousCondition(column="age_at_scan")},
)
NEVER = ("modality",)
TABLE = pd.DataFrame(
    {"diagnosis": ["AD", None, "SCZ"], "modality": ["T1", "T2", "T1"], "age_at_scan": [70.0, np.nan, 8.0]}
)


def embedding() -> ConditionEmbedding:
    with seeded(0):
        return ConditionEmbedding(VOCABULARY, NEVER, 12)


def embed(conditions: Conditions) -> torch.Tensor:
    return embedding()(conditions.values, conditions.state)


def test_missing_and_foreign_values_are_unknown():
    conditions = encode_conditions(TABLE, VOCABULARY)
    assert conditions.values.tolist() == [[1, 0, 70], [0, 1, 0], [0, 0, 8]]
    assert conditions.state.tolist() == [[KNOWN] * 3, [UNKNOWN, KNOWN, UNKNOWN], [UNKNOWN, KNOWN, KNOWN]]


def test_no_rows_no_conditions():
    assert len(encode_conditions(TABLE.iloc[:0], VOCABULARY)) == 0


def test_absent_column_is_named():
    with pytest.raises(BrainG3NError, match="age_at_scan"):
        encode_conditions(TABLE.drop(columns="age_at_scan"), VOCABULARY)


def test_request_tells_value_null_and_unknown_apart():
    conditions = requested_conditions(
        [{"disease": "AD", "modality": "T2"}, {"modality": "T1", "age": None}], VOCABULARY
    )
    assert conditions.state.tolist() == [[KNOWN, KNOWN, UNKNOWN], [UNKNOWN, KNOWN, NULL]]
    assert conditions.values.tolist() == [[1, 1, 0], [0, 0, 0]]


@pytest.mark.parametrize(
    ("request_", "match"),
    [
        ({"modality": "T1", "colour": "red"}, "colour"),
        ({"modality": "FLAIR"}, "no such class of modality"),
        ({"modality": "T1", "age": "old"}, "age must be a number"),
        ({"disease": "HC"}, "none for modality"),
        ({"modality": None}, "none for modality"),
    ],
)
def test_wrong_requests_are_refused(request_, match):
    with pytest.raises(BrainG3NError, match=match):
        requested_conditions([request_], VOCABULARY, NEVER)


@pytest.mark.parametrize(("independent", "joint"), [(0.1, 0.0), (0.0, 0.1), (0.1, 0.1)])
def test_null_frequencies_are_those_asked_for(independent, joint):
    n = 40_000
    conditions = Conditions(torch.zeros(n, 3), torch.zeros(n, 3, dtype=torch.int64))
    may_drop = droppable(VOCABULARY, NEVER)
    dropped = drop_conditions(conditions, may_drop, independent, joint, generator("cpu", 0))
    each, together = 1 - (1 - independent) * (1 - joint), joint + (1 - joint) * independent**2
    frequencies = {key: float(value) for key, value in null_frequencies(dropped, VOCABULARY, may_drop).items()}
    assert set(frequencies) == {"null_disease", "null_age", "null_all"}
    for key, expected in (("null_disease", each), ("null_age", each), ("null_all", together)):
        tolerance = 4 * (expected * (1 - expected) / n) ** 0.5 + 1e-9  # four standard errors
        assert frequencies[key] == pytest.approx(expected, abs=tolerance)
    assert int((dropped.state[:, 1] == NULL).sum()) == 0  # the modality is never dropped


def test_dropping_hides_known_and_unknown_alike():
    conditions = encode_conditions(TABLE, VOCABULARY)
    nulled = conditions.nulled(droppable(VOCABULARY, NEVER))
    assert nulled.state.tolist() == [[NULL, KNOWN, NULL]] * 3
    embedded = embed(nulled)
    torch.testing.assert_close(embedded[0], embedded[2])  # only the modality is left, and that is equal


def test_known_unknown_and_null_have_embeddings_of_their_own():
    requests = [{"disease": "HC"}, {"disease": "AD"}, {}, {"disease": None}, {"age": 70}, {"age": 71}, {"age": None}]
    embedded = embed(requested_conditions([{"modality": "T1"} | request for request in requests], VOCABULARY)).detach()
    distances = torch.cdist(embedded, embedded) + torch.eye(len(requests))
    assert float(distances.min()) > 1e-4


def test_conditions_add_up():
    pair = embed(requested_conditions([{"modality": "T1", "disease": "AD", "age": 70}], VOCABULARY))
    modality_and_age = embed(requested_conditions([{"modality": "T1", "disease": "HC", "age": 70}], VOCABULARY))
    table = embedding().classes["disease"].weight
    torch.testing.assert_close(pair - modality_and_age, (table[1] - table[0])[None])


def test_join_take_and_digest():
    conditions = encode_conditions(TABLE, VOCABULARY)
    joined = conditions.take(np.array([2])).join(conditions.take(np.array([0, 1])))
    assert joined.values.tolist() == conditions.take(np.array([2, 0, 1])).values.tolist()
    assert joined.digest() != conditions.digest()
    assert conditions.digest() == encode_conditions(TABLE, VOCABULARY).digest()


def test_the_shipped_vocabularies_have_the_papers_sizes():
    config = load_config([CONFIG])
    sizes = {name: len(spec.classes) for name, spec in config.dit.conditions.categorical.items()}
    assert sizes == {"disease": 8, "sex": 2, "modality": 4, "site": 18, "idh1": 2}
    assert tuple(config.dit.conditions.continuous) == ("age",)
    assert config.dit.never_dropped == ("modality",)
    assert set(config.longitudinal.conditions.names) == {"disease", "sex", "age", "cdr", "horizon"}
    assert config.longitudinal.never_dropped == ("disease", "horizon")
