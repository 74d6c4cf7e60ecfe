from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from braing3n.cohorts.schema import INDEX_COLUMNS
from braing3n.errors import BrainG3NError
from braing3n.probing.tasks import Task, as_text, load_tasks, target

PANEL = Path(__file__).parents[2] / "config/tasks.yaml"


def task(**changes) -> Task:
    content = {
        "id": "x",
        "name": "x",
        "title": "x",
        "kind": "regression",
        "field": "y",
        "status": "extra",
        "evidence": "",
    }
    return Task.model_validate(content | changes)


def test_shipped_panel_is_the_papers():
    panel = [t for t in load_tasks(PANEL) if t.status != "extra"]
    assert [t.id for t in panel] == [f"T{i:02d}" for i in range(1, 24)]
    assert sum(t.kind == "classification" for t in panel) == 15
    assert sum(t.status == "named" for t in panel) == 19


def test_shipped_panel_asks_for_columns_and_values_that_exist():
    for t in load_tasks(PANEL):
        for column in (t.field, *t.where):
            assert column in INDEX_COLUMNS, t.name
        allowed = INDEX_COLUMNS[t.field].values
        if allowed and isinstance(t.classes, dict):
            assert {v for values in t.classes.values() for v in values} <= set(allowed), t.name


def test_classes_merge_values_however_they_are_stored():
    t = task(kind="classification", classes={"low": [2, 3], "high": [4]})
    for column in ([2, 3.0, 4, None], pd.array([2, 3, 4, None], "Int64"), ["2", "3", "4", None]):
        found = target(t, pd.DataFrame({"y": column, "person_id": list("abcd")}))
        np.testing.assert_array_equal(found.values, [0, 0, 1, np.nan])
    assert found.classes == ("low", "high")


def test_bins_include_their_ends():
    t = task(kind="classification", bins={"1.5 T": (1.4, 1.6), "3 T": (2.8, 3.2)})
    found = target(t, pd.DataFrame({"y": [1.5, 1.4, 2.0, 3.2, np.nan], "person_id": list("abcde")}))
    np.testing.assert_array_equal(found.values, [0, 0, np.nan, 1, np.nan])


def test_where_keeps_only_the_named_scans():
    t = task(where={"diagnosis": ["HC"], "age_is_binned": [False]})
    table = pd.DataFrame(
        {"y": [1.0, 2.0, 3.0], "diagnosis": ["HC", "AD", "HC"], "age_is_binned": pd.array([False, False, True])}
    )
    np.testing.assert_array_equal(target(t, table).values, [1, np.nan, np.nan])


def test_all_takes_the_values_with_most_persons():
    t = task(kind="classification", classes="all", max_classes=2)
    table = pd.DataFrame({"y": list("aaaaabbccc"), "person_id": list("1111123456")})  # most scans of a, by one person
    assert target(t, table).classes == ("b", "c")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "classification"}, "classes or bins"),
        ({"classes": {"a": ["a"], "b": ["b"]}}, "neither classes nor bins"),
        ({"kind": "classification", "classes": {"a": ["a"]}}, "at least two"),
        ({"slices": ["T3"]}, "slices are pooled or a modality"),
    ],
)
def test_wrong_tasks_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        task(**changes)


def test_two_tasks_of_one_name_are_refused(tmp_path):
    file = tmp_path / "tasks.yaml"
    entry = "{name: a, title: a, kind: regression, field: y, status: extra, evidence: '', id: %s}"
    file.write_text(f"version: 1\ntasks: [{entry % 'A'}, {entry % 'B'}]\n")
    with pytest.raises(BrainG3NError, match="share the name a"):
        load_tasks(file)


def test_missing_column_is_named():
    with pytest.raises(BrainG3NError, match="needs the column 'y'"):
        target(task(), pd.DataFrame({"person_id": ["a"]}))


def test_as_text():
    values = [4, 4.0, np.float32(0.5), True, np.bool_(False), "E3/E4", None, np.nan, pd.NA]
    assert [as_text(v) for v in values] == ["4", "4", "0.5", "true", "false", "E3/E4", None, None, None]
