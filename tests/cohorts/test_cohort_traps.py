"""The mistakes that others made with these cohorts, one test each: it fails if the trap is fallen into."""

import pandas as pd
import pytest

from braing3n.cohorts.definition import load_definition
from braing3n.cohorts.scan import scan_cohort
from braing3n.errors import BrainG3NError
from braing3n.phantom.layouts import write_layout


def one(cohort, **where):
    """The single row in which all columns have these values."""
    rows = cohort.scan.rows
    for column, value in where.items():
        rows = rows[rows[column] == value]
    assert len(rows) == 1, f"{len(rows)} rows with {where}"
    return rows.iloc[0]


@pytest.mark.parametrize(
    ("name", "table", "column", "female"),
    [
        ("CoRR", "CoRR_AggregatedPhenotypicData.csv", "SEX", "1"),
        ("HBN", "Site-RU/participants.tsv", "Sex", "1"),
        ("ADHD-200", "adhd200_preprocessed_phenotypics.tsv", "Gender", "0"),
        ("PPMI", "Demographics_05Jan2025.csv", "SEX", "0"),
        ("ADNI", "PTDEMOG_05Jan2025.csv", "PTGENDER", "2"),
        ("ABIDE-I", "Phenotypic_V1_0b_preprocessed1.csv", "SEX", "2"),
        ("ABIDE-II", "ABIDEII_Composite_Phenotypic.csv", "SEX", "2"),
    ],
)
def test_sex_is_coded_otherwise_in_every_cohort(scanned, name, table, column, female):
    """Counted from the table itself: as many women among the subjects as codes for a woman in the table."""
    cohort = scanned(name)
    raw = pd.read_csv(cohort.tree.root / table, sep=None, engine="python", dtype=str, encoding="latin-1")
    raw.columns = raw.columns.str.strip()
    key = next(c for c in raw.columns if c in ("SUBID", "participant_id", "ScanDir ID", "PATNO", "PTID", "SUB_ID"))
    women = raw[raw[column] == female][key].str.extract(r"(?:sub-)?0*(\S+)")[0]
    people = cohort.scan.rows.drop_duplicates("subject_id")
    bare = people["subject_id"].str.extract(r":0*(\S+)$")[0]
    in_table = bare.isin(raw[key].str.extract(r"(?:sub-)?0*(\S+)")[0])
    assert in_table.any()
    assert set(bare[in_table & (people["sex"] == "F").to_numpy()]) == set(women) & set(bare)


def test_ppmi_codes_of_an_old_release(scanned):
    """1 is a woman in Randomization_table and a man in Demographics."""
    ppmi = scanned("PPMI")
    assert one(ppmi, subject_id="PPMI:9001", modality="T1")["sex"] == "F"
    assert one(ppmi, subject_id="PPMI:9002", modality="T1")["sex"] == "M"


def test_ppmi_scores_belong_to_the_visit_and_to_the_state_off_medication(scanned):
    rows = scanned("PPMI").scan.rows
    visits = rows[(rows["subject_id"] == "PPMI:3000") & (rows["modality"] == "T1")].sort_values("session_date")
    assert len(visits) > 1
    assert list(visits["updrs3"]) == [20.0 + visit for visit in range(len(visits))]
    assert list(visits["moca"]) == [30.0 - visit for visit in range(len(visits))]
    assert visits["age_at_scan"].is_monotonic_increasing


def test_ppmi_scanner_is_read_from_the_images(scanned):
    """No open table is needed for it, and the digits of PATNO are no site."""
    rows = scanned("PPMI").scan.rows
    assert set(rows["vendor"]) == {"Siemens"}
    assert set(rows["field_strength"]) == {3.0}
    assert rows["site"].isna().all()


def test_ppmi_total_of_101_is_a_score(scanned):
    assert one(scanned("PPMI"), subject_id="PPMI:9002", modality="T1")["updrs3"] == 101


def test_adni_one_image_a_date_by_stated_priority(scanned):
    adni = scanned("ADNI")
    rows = adni.scan.rows[adni.scan.rows["subject_id"] == "ADNI:941_S_9001"]
    assert list(rows["session_id"]) == ["20100505", "20120601", "20150101"]
    assert rows.iloc[0]["source_variant"] == "processed: MT1, gradient-unwarped, N3"
    assert rows.iloc[0]["entry_bias_corrected"]
    assert not rows.iloc[1]["entry_bias_corrected"]  # original DICOM of the second visit
    assert "REPEAT" not in rows.iloc[1]["source_path"]


def test_adni_repeats_are_chosen_by_the_readers_and_not_from_what_failed(scanned):
    """A REPEAT comes second unless the quality tables prefer it."""
    first, second = scanned("ADNI").scan.rows.query("subject_id == 'ADNI:941_S_9002'").itertuples()
    assert "MP-RAGE_REPEAT" in first.source_path
    assert "_S61_" in second.source_path


def test_unknown_ratings_are_named_errors(tmp_path):
    write_layout("ADNI", tmp_path, 2, 2, traps=True)
    text = (tmp_path / "MRIQUALITY.csv").read_text()
    (tmp_path / "MRIQUALITY.csv").write_text(text.replace("S60,0", "S60,7"))
    with pytest.raises(BrainG3NError, match=r"MRIQUALITY.csv: column 'PASS'.*'1', '', '0', '2', '3'.*'7'"):
        scan_cohort(load_definition("ADNI"), tmp_path)


def test_adni_diagnosis_is_the_nearest_visits_not_the_latest_or_an_old_releases(scanned):
    first, second, third = scanned("ADNI").scan.rows.query("subject_id == 'ADNI:941_S_9001'").itertuples()
    assert (first.diagnosis, first.score_date_delta_days) == ("MCI", 88.0)  # 88 days to the MMSE, 4 to the diagnosis
    assert second.diagnosis == "AD"
    assert pd.isna(third.diagnosis), "the nearest visit is years away"


def test_adni_missing_codes_are_no_scores(scanned):
    rows = scanned("ADNI").scan.rows
    assert rows[["mmse", "cdr", "education_years"]].min().min() >= 0


def test_adni_age_is_the_scans(scanned):
    rows = scanned("ADNI").scan.rows.query("subject_id == 'ADNI:941_S_9001'")
    assert rows["age_at_scan"].diff().dropna().min() > 1.9
    assert set(rows["age_source"]) == {"birth_date"}


def test_oasis_orientation_is_declared(scanned):
    """An Analyze header has none; a reader's default would swap axes."""
    for name in ("OASIS-1", "OASIS-2"):
        assert set(scanned(name).scan.rows["entry_axes"]) == {"ASL"}
    published = load_definition("OASIS-1", as_published=True)
    assert {pattern.entry.axes for pattern in published.images} == {"LAS"}


def test_oasis_n4_in_a_name_is_a_count_of_scans(scanned):
    rows = scanned("OASIS-1").scan.rows
    assert rows["source_path"].str.contains("_n4_").any()
    assert not rows["entry_bias_corrected"].any()


def test_oasis_categories_are_no_years_and_old_persons_without_a_rating_have_no_diagnosis(scanned):
    oasis = scanned("OASIS-1")
    assert oasis.scan.rows["education_years"].isna().all()
    assert pd.isna(one(oasis, subject_id="OASIS-1:OAS1_0900")["diagnosis"])
    young = oasis.scan.rows[oasis.scan.rows["age_at_scan"] < 60]
    assert set(young["diagnosis"]) == {"HC"}


def test_oasis_2_diagnosis_changes_between_visits(scanned):
    rows = scanned("OASIS-2").scan.rows
    converted = rows[rows["diagnosis_detail"] == "Converted"]
    assert set(converted["diagnosis"]) == {"HC", "MCI"}


def test_fcon1000_equal_numbers_at_two_sites_are_two_persons(scanned):
    rows = scanned("FCON1000").scan.rows
    twice = rows[rows["subject_id"].str.endswith(":00101")]
    assert len(twice) == 3
    assert twice["person_id"].nunique() == twice["bids_subject"].nunique() == 3


def test_fcon1000_tables_without_a_header(scanned):
    """Neither the running number nor the wrong column is the age; the code 9999 is no age."""
    rows = scanned("FCON1000").scan.rows.set_index("subject_id")
    oulu = rows.loc[[f"FCON1000:Oulu:7000{i}" for i in (1, 2, 3)]]
    assert list(oulu["age_at_scan"]) == [21, 34, 22]
    assert list(oulu["sex"]) == ["M", "F", "M"]
    leiden = rows.loc[[f"FCON1000:Leiden_2180:7000{i}" for i in (1, 2)]]
    assert leiden["age_at_scan"].iloc[0] == 23.5
    assert pd.isna(leiden["age_at_scan"].iloc[1])
    assert list(leiden["sex"]) == ["F", "M"]


def test_fcon1000_patients_are_not_controls(scanned):
    assert not scanned("FCON1000").scan.rows["source_path"].str.contains("ADHD").any()


def test_equal_ids_of_corr_and_adhd_200_are_two_persons(scanned):
    corr, adhd = scanned("CoRR").scan.rows, scanned("ADHD-200").scan.rows
    assert "CoRR:0025000" in set(corr["subject_id"])
    assert "ADHD-200:0025000" in set(adhd["subject_id"])
    assert not set(corr["person_id"]) & set(adhd["person_id"])


def test_abide_persons_scanned_twice_are_one_person(scanned):
    first, second = scanned("ABIDE-I"), scanned("ABIDE-II")
    renumbered = one(second, subject_id="ABIDE-II:29355")["person_id"]
    assert renumbered == one(first, subject_id="ABIDE-I:0050810")["person_id"]
    assert one(second, subject_id="ABIDE-II:51315")["person_id"] == "ABIDE-I:0051315"


def test_all_seven_renumbered_abide_persons():
    same = load_definition("ABIDE-II").persons.same_as
    pairs = {"0050810": 29355, "0050811": 29357, "0050783": 29358, "0050780": 29353, "0050779": 29352} | {
        "0050790": 29364,
        "0050509": 29506,
    }
    assert same == {str(second): f"ABIDE-I:{first}" for first, second in pairs.items()}


def test_abide_handedness_is_letters_then_numbers(scanned):
    assert set(scanned("ABIDE-I").scan.rows["handedness"].dropna()) == {"R", "A"}
    assert set(scanned("ABIDE-II").scan.rows["handedness"].dropna()) == {"R", "L", "A"}


def test_nki_persons_of_both_samples_are_one_person(scanned):
    first, second = (scanned(name).scan.rows for name in ("NKI-RS", "NKI-RS2"))
    shared = set(first["person_id"]) & set(second["person_id"])
    assert shared == {"NKI:A00000001", "NKI:A00000003", "NKI:A00000005", "NKI:A00000007", "NKI:A00000009"}
    assert not set(first["subject_id"]) & set(second["subject_id"])


def test_nki_age_of_another_visit_is_not_used(scanned):
    assert scanned("NKI-RS2").scan.rows["age_at_scan"].isna().all()
    assert one(scanned("NKI-RS"), subject_id="NKI-RS:A99999999", session_id="FLU1")["age_at_scan"] is not None
    assert pd.isna(one(scanned("NKI-RS"), subject_id="NKI-RS:A99999999", session_id="FLU1")["age_at_scan"])


def test_hbn_tables_that_are_csv_in_spite_of_their_name(scanned):
    hbn = scanned("HBN")
    assert "," in (hbn.tree.root / "Site-RU/participants.tsv").read_text().splitlines()[0]
    assert "\t" in (hbn.tree.root / "Site-CBIC/participants.tsv").read_text().splitlines()[0]
    known = hbn.scan.rows[hbn.scan.rows["subject_id"] != "HBN:NDARZZ999QQQ"]
    assert known["age_at_scan"].notna().all()


def test_carriage_returns_alone_end_lines(scanned):
    corr = scanned("CoRR")
    content = (corr.tree.root / "CoRR_AggregatedPhenotypicData.csv").read_bytes()
    assert b"\r" in content
    assert b"\n" not in content
    assert corr.scan.rows["sex"].notna().any()


def test_latin_1_and_a_blank_behind_a_column_name(scanned):
    abide = scanned("ABIDE-II")
    content = (abide.tree.root / "ABIDEII_Composite_Phenotypic.csv").read_bytes()
    with pytest.raises(UnicodeDecodeError):
        content.decode("utf-8")
    assert b"AGE_AT_SCAN ," in content
    assert abide.scan.rows["age_at_scan"].notna().all()


def test_another_encoding_is_a_named_error(tmp_path):
    write_layout("ABIDE-I", tmp_path, 4, 4)
    path = tmp_path / "Phenotypic_V1_0b_preprocessed1.csv"
    path.write_bytes(path.read_bytes().replace(b"SITE_ID", "SITE_ID,Ü".encode("latin-1")))
    with pytest.raises(BrainG3NError, match=r"Phenotypic_V1_0b.*encoding"):
        scan_cohort(load_definition("ABIDE-I"), tmp_path)


def test_ixi_second_rows_of_a_person(scanned):
    """A row without an age stands before the one with it; rows that contradict each other in sex say nothing."""
    ixi = scanned("IXI")
    rows = ixi.scan.rows
    assert rows[rows["subject_id"] == "IXI:IXI001"]["age_at_scan"].notna().all()
    assert any("disagree" in note and "IXI013" in note for note in ixi.scan.notes)


def test_old_excel_sheets_are_read(scanned):
    """The format knows floats only: id 2.0 is IXI002 and code 2.0 a woman."""
    ixi = scanned("IXI")
    assert (ixi.tree.root / "IXI.xls").read_bytes()[:4] == bytes.fromhex("d0cf11e0")
    assert one(ixi, subject_id="IXI:IXI002", modality="T1")["sex"] == "F"


@pytest.mark.parametrize(
    ("name", "subject", "column"),
    [
        ("ADNI", "941_S_9001", "education_years"),
        ("ABIDE-I", "0050810", "age_at_scan"),
        ("ABIDE-I", "0050810", "handedness"),
        ("ADHD-200", "0025000", "sex"),
        ("ADHD-200", "0025000", "age_at_scan"),
        ("CoRR", "0025001", "handedness"),
        ("FCON1000", "AnnArbor_a:90001", "age_at_scan"),
        ("FCON1000", "NewYork_a:90001", "age_at_scan"),
        ("UPENN-GBM", "UPENN-GBM-90001", "idh1"),
        ("UPENN-GBM", "UPENN-GBM-90001", "mgmt"),
        ("NKI-RS", "A99999999", "sex"),
        ("HBN", "NDARZZ999QQQ", "handedness"),
    ],
)
def test_missing_codes_are_missing(scanned, name, subject, column):
    """-4, -9999, -999, N/A, #, 9999, 520 years, NOS/NEC, Indeterminate, n/a: each in its own cohort's table."""
    rows = scanned(name).scan.rows
    rows = rows[rows["subject_id"] == f"{name}:{subject}"]
    assert len(rows)
    assert rows[column].isna().all()


def test_binned_ages_are_marked(scanned):
    assert scanned("BGSP").scan.rows["age_is_binned"].all()
    restricted = scanned("HCP-YA").scan.rows
    assert not restricted["age_is_binned"].any()


def test_hcp_open_ages_are_bins(tmp_path):
    write_layout("HCP-YA", tmp_path, 4, 2)
    rows = scan_cohort(load_definition("HCP-YA"), tmp_path).rows
    assert set(rows["age_source"]) == {"bin"}
    assert rows["age_is_binned"].all()


def test_hcp_twins_stay_together(scanned):
    rows = scanned("HCP-YA").scan.rows
    assert rows["person_id"].nunique() == rows["subject_id"].nunique() / 2


def test_ucsf_ids_of_three_and_four_digits_meet_and_idh2_is_not_idh1(scanned):
    ucsf = scanned("UCSF-PDGM")
    assert ucsf.scan.rows["age_at_scan"].notna().all()
    assert pd.isna(one(ucsf, subject_id="UCSF-PDGM:0900", modality="T1")["idh1"])


def test_schizo_siblings_are_neither_patients_nor_controls(scanned):
    assert "SCHIZO:A99999999" not in set(scanned("SCHIZO").scan.rows["subject_id"])


def test_4d_files_non_brain_series_and_repeats_are_left_out(scanned):
    reasons = " ".join(scanned(name).ledger["reason"].str.cat(sep=" ") for name in ("IXI", "BGSP", "ADNI", "NKI-RS"))
    for reason in ("4D series of 20 volumes", "4D series of 124 volumes", "no structural T1", "repeat: "):
        assert reason in reasons


def test_corr_retest_ages_are_baseline_plus_interval(tmp_path):
    """Retests are left out by default; whoever takes that rule away gets their ages from the baseline row."""
    tree = write_layout("CoRR", tmp_path, 2, 2)
    tree.nifti("RawDataBIDS/BMB_1/sub-0025000/ses-2/anat/sub-0025000_ses-2_run-1_T1w.nii.gz")
    definition = load_definition("CoRR").model_copy(update={"exclude": ()})
    rows = scan_cohort(definition, tmp_path).rows.set_index(["subject_id", "session_id"])
    retest, baseline = rows.loc["CoRR:0025000", "2"], rows.loc["CoRR:0025000", "1"]
    assert retest["age_at_scan"] == pytest.approx(baseline["age_at_scan"] + 30 / 365.25, abs=1e-6)
    assert retest["age_source"] == "baseline_plus_interval"
    assert retest["sex"] == baseline["sex"] == "F"


@pytest.mark.parametrize(
    ("name", "path", "old", "new", "words"),
    [
        ("ADNI", "PTDEMOG_05Jan2025.csv", ",1,", ",7,", ["PTDEMOG_05Jan2025.csv", "PTGENDER", "'7'", "'1', '2'"]),
        ("HBN", "Site-RU/participants.tsv", ",0,", ",5,", ["Site-RU/participants.tsv", "Sex", "'5'", "'0', '1'"]),
        ("UPENN-GBM", "UPENN-GBM_clinical_info_v2.1.csv", "Wildtype", "Wild", ["IDH1", "'Wild'", "'Mutated'"]),
        ("ADNI", "MMSE_05Jan2025.csv", ",30", ",99", ["MMSE_05Jan2025.csv", "MMSCORE", "'99'", "from 0 to 30"]),
        ("ADNI", "CDR_05Jan2025.csv", ",0.5", ",4.5", ["CDR_05Jan2025.csv", "CDGLOBAL", "'4.5'", "0, 0.5, 1, 2, 3"]),
        ("ADNI", "PTDEMOG_05Jan2025.csv", ",01/", ",Jan ", ["PTDEMOG_05Jan2025.csv", "PTDOB", "Jan ", "%m/%Y"]),
        (
            "ADNI",
            "DXSUM_05Jan2025.csv",
            ",2008-",
            ",08/2008-",
            ["DXSUM_05Jan2025.csv", "EXAMDATE", "'08/2008-", "%Y-%m-%d"],
        ),
        ("ADNI", "APOERES_05Jan2025.csv", ",4,3", ",5,3", ["APOERES_05Jan2025.csv", "APGEN1", "2, 3, 4"]),
        ("PPMI", "SCOPA-AUT_05Jan2025.csv", ",1,", ",x,", ["SCOPA-AUT_05Jan2025.csv", "SCAU1'", "'x'", "0 to 3"]),
        ("ADNI", "DXSUM_05Jan2025.csv", "DIAGNOSIS", "DXCURREN", ["DXSUM_05Jan2025.csv", "DIAGNOSIS", "DXCURREN"]),
    ],
)
def test_unknown_codes_are_named_errors(tmp_path, name, path, old, new, words):
    write_layout(name, tmp_path, 8, 4)
    text = (tmp_path / path).read_text()
    assert old in text
    (tmp_path / path).write_text(text.replace(old, new, 1))
    with pytest.raises(BrainG3NError) as caught:
        scan_cohort(load_definition(name), tmp_path)
    for word in words:
        assert word in str(caught.value)
