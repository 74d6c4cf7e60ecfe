"""Clinical tables: keys, dates, codes, and the derivations that need code."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from braing3n.cohorts.derive import UnknownValueError, age_from_birth, apoe_genotype, item_sum, retest_age
from braing3n.cohorts.fields import _field_strength, _vendor
from braing3n.cohorts.identity import clean, labels
from braing3n.cohorts.table_models import ClinicalTable, Cut
from braing3n.cohorts.tables import ALWAYS_MISSING, _read_excel, canonical, parse_dates, table_files
from braing3n.cohorts.template import fill, parts_of

IMAGES = pd.DataFrame({"date": pd.to_datetime(["2010-06-15", "2012-06-15"])})


@pytest.mark.parametrize(
    ("template", "parts", "expected"),
    [
        ("{a}", {"a": "x"}, "x"),
        ("IXI{IXI_ID:zfill3}", {"IXI_ID": 2}, "IXI002"),
        ("{ScanDir ID:zfill7}", {"ScanDir ID": "10001"}, "0010001"),
        ("{site}:{id:digits|zfill5}", {"site": "Beijing", "id": "sub440"}, "Beijing:00440"),
        ("{M/F}.{x:int}", {"M/F": "F", "x": "007"}, "F.7"),
        ("{a}_{b}", {"a": "1", "b": None}, "1_"),
    ],
)
def test_templates(template, parts, expected):
    assert fill(template, parts) == expected
    assert set(parts_of(template)) == set(parts)


def test_unknown_template_format():
    with pytest.raises(ValueError, match=r"upper.*zfillN"):
        fill("{a:upper}", {"a": "x"})


@pytest.mark.parametrize(("one", "other"), [("1", "1.0"), (" M", "m"), ("0.50", "0.5"), ("Baseline", "baseline")])
def test_codes_in_several_spellings_are_one(one, other):
    assert canonical(one) == canonical(other)


def test_the_latest_release_is_read():
    table = ClinicalTable(files=("**/DXSUM_*.csv",), key="{PTID}")
    paths = ["old/DXSUM_05Dec2023.csv", "DXSUM_12Nov2024.csv", "DXSUM_20Jan2019.csv", "MMSE_01Jan2025.csv"]
    assert table_files(table, paths) == ["DXSUM_12Nov2024.csv"]


def test_globs_span_folders_only_with_two_stars():
    one, two = (ClinicalTable(files=(glob,), key="{a}", combine="all") for glob in ("*/p.tsv", "**/p.tsv"))
    paths = ["p.tsv", "a/p.tsv", "a/b/p.tsv", "a/xp.tsv"]
    assert table_files(one, paths) == ["a/p.tsv"]
    assert table_files(two, paths) == ["a/b/p.tsv", "a/p.tsv", "p.tsv"]


def test_dates_without_a_day_stand_for_the_middle_of_the_month():
    dates = parse_dates(pd.Series(["03/1940", "1940-03-02", "", "x"]), ("%m/%Y", "%Y-%m-%d"))
    assert list(dates.dt.strftime("%Y-%m-%d").fillna("")) == ["1940-03-15", "1940-03-02", "", ""]


def test_days_in_excel_are_dates(tmp_path):
    """A sheet keeps a day as a time at midnight, which a format without hours would not read."""
    rows = pd.DataFrame(
        {"id": [1, 2], "day": [*map(pd.Timestamp, ("2024-01-31", "2024-02-01 09:30"))], "score": [28.0, 27.5]}
    )
    rows.to_excel(tmp_path / "scores.xlsx", index=False)
    found = _read_excel(tmp_path / "scores.xlsx")
    assert found.to_numpy().tolist() == [["1", "2024-01-31", "28"], ["2", "2024-02-01 09:30:00", "27.5"]]


def test_age_from_birth():
    ages = age_from_birth(pd.DataFrame({"PTDOB": ["06/1940", ""]}), IMAGES, ALWAYS_MISSING, formats=["%m/%Y"])
    assert ages[0] == pytest.approx(70.0, abs=0.01)
    assert pd.isna(ages[1])
    with pytest.raises(UnknownValueError, match=r"birth dates.*PTDOB"):
        age_from_birth(pd.DataFrame({"PTDOB": ["June", ""]}), IMAGES, ALWAYS_MISSING, formats=["%m/%Y"])


@settings(deadline=None)
@given(st.lists(st.integers(0, 3), min_size=4, max_size=4))
def test_item_sum_reverses_and_recodes(answers):
    columns = pd.DataFrame([[str(a) for a in answers]], columns=list("abcd"))
    total = item_sum(columns, IMAGES, ALWAYS_MISSING, highest=3, reverse=["a"], recode={"d": {"2": 0}})
    assert total[0] == (3 - answers[0]) + answers[1] + answers[2] + (0 if answers[3] == 2 else answers[3])


def test_item_sum_of_a_blank_is_unknown_unless_the_blank_has_a_value():
    columns = pd.DataFrame([["1", ""], [np.nan, np.nan], ["1", "1"]], columns=["a", "b"])
    assert item_sum(columns, IMAGES, ALWAYS_MISSING, highest=3).isna().tolist() == [True, True, False]
    recoded = item_sum(columns, IMAGES, ALWAYS_MISSING, highest=3, recode={"a": {"": 0}, "b": {"": 0}})
    assert recoded.tolist()[0] == 1
    assert pd.isna(recoded[1]), "a person without a row must not score"
    for answer in ("4", "-1", "x"):
        with pytest.raises(UnknownValueError, match="outside its scale"):
            item_sum(pd.DataFrame({"a": [answer]}), IMAGES, ALWAYS_MISSING, highest=3)


@pytest.mark.parametrize(
    ("row", "age"), [(("20", "365.25", "d"), 21), (("20", "#", "d"), None), (("20", "1440", "m"), 20 + 1 / 365.25)]
)
def test_retest_age(row, age):
    columns = pd.DataFrame([row], columns=["age", "duration", "unit"])
    found = retest_age(columns, IMAGES, ALWAYS_MISSING | {"#"})[0]
    assert pd.isna(found) if age is None else found == pytest.approx(age)


@pytest.mark.parametrize(("row", "words"), [(("20", "1", "weeks"), "unit"), (("twenty", "1", "d"), "not a number")])
def test_retest_age_that_cannot_be_read(row, words):
    with pytest.raises(UnknownValueError, match=words):
        retest_age(pd.DataFrame([row], columns=["age", "duration", "unit"]), IMAGES, ALWAYS_MISSING)


@pytest.mark.parametrize(("alleles", "expected"), [(["4", "3"], "E3/E4"), (["34.0"], "E3/E4"), (["E2/E4"], "E2/E4")])
def test_apoe(alleles, expected):
    columns = pd.DataFrame([alleles], columns=[f"c{i}" for i in range(len(alleles))])
    assert apoe_genotype(columns, IMAGES, ALWAYS_MISSING)[0] == expected


def test_apoe_that_cannot_be_read():
    with pytest.raises(UnknownValueError, match="two alleles"):
        apoe_genotype(pd.DataFrame([["3", "5"]], columns=["a", "b"]), IMAGES, ALWAYS_MISSING)
    assert apoe_genotype(pd.DataFrame([["", ""]], columns=["a", "b"]), IMAGES, ALWAYS_MISSING).isna().all()


@pytest.mark.parametrize(
    ("text", "vendor"),
    [
        ("SIEMENS", "Siemens"),
        ("GE MEDICAL SYSTEMS", "GE"),
        ("Philips Medical Systems", "Philips"),
        ("Geneva", "Geneva"),
    ],
)
def test_vendor_spellings(text, vendor):
    assert _vendor(text) == vendor


@pytest.mark.parametrize(("reported", "nominal"), [(2.89, 3.0), (1.494, 1.5), (30000, 3.0), (7, 7.0), (2.0, 2.0)])
def test_field_strengths(reported, nominal):
    assert _field_strength(reported) == nominal


def test_cuts_rise():
    with pytest.raises(ValueError, match="rising cuts"):
        Cut(at=(2, 1), labels=("a", "b", "c"))


@settings(deadline=None)
@given(st.sets(st.text(min_size=1, max_size=8), min_size=1, max_size=8))
def test_labels_are_alphanumeric_unique_and_regardless_of_case(ids):
    result = labels(ids, "P")
    assert set(result) == ids
    assert all(label.isascii() and label.isalnum() for label in result.values())
    assert len({label.casefold() for label in result.values()}) == len(ids)


def test_labels_are_plain_where_they_can_be():
    assert labels(["002_S_0413"], "ADNI") == {"002_S_0413": "ADNI002S0413"}
    assert clean("sub-é1") == "sub1"
    assert len(set(labels(["1-1", "11"], "").values())) == 2
