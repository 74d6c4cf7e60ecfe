"""The shipped definitions: complete, every pattern matches its example, and what a wrong one is told."""

import re

import pytest
import yaml

from braing3n.cohorts.definition import known_cohorts, load_definition
from braing3n.cohorts.schema import DIAGNOSES
from braing3n.errors import BrainG3NError
from braing3n.phantom.layouts import LAYOUTS

COHORTS = known_cohorts()
# Paths of the cohorts' documentation, and one that must not match beside each.
PATHS = {
    "ADNI": [
        "ADNI/002_S_0413/MT1__GradWarp__N3m/2006-11-15_09_24_33.0/I123456/ADNI_002_S_0413_I123456.nii",
        "002_S_0413/MPRAGE/2006-05-02_12_31_52.0/S13893/x.dcm",
        "002_S_0413/MP-RAGE/2006-05-02_12_31_52.0/I13893/ADNI_002_S_0413_MR_MP-RAGE_br_raw_1_S13893_I13893.dcm",
    ],
    "PPMI": ["PPMI2/PPMI/3200/1/MPRAGE_GRAPPA/2010-12-02_13_03_45.0/S97623/PPMI_3200.dcm"],
    "NKI-RS": [
        "RawDataBIDSLatest/sub-A00008326/ses-BAS1/anat/sub-A00008326_ses-BAS1_acq-x_run-2_T1w.nii.gz",
        "A00008326/DS2/mprage_siemens_defaced/mprage_siemens_defaced.nii.gz",
    ],
    "UPENN-GBM": [
        "UPENN-GBM/NIfTI-files/images_structural/UPENN-GBM-00001_11/UPENN-GBM-00001_11_T1GD.nii.gz",
        "images_structural_unstripped/UPENN-GBM-00001_11/UPENN-GBM-00001_11_T1_unstripped.nii.gz",
    ],
    "HCP-YA": [
        "HCP_1200/100307/T1w/T2w_acpc_dc_restore_brain.nii.gz",
        "100307/unprocessed/3T/T1w_MPR1/100307_3T_T1w_MPR1.nii.gz",
    ],
    "HBN": [
        "sub-NDARAA536PTU/anat/sub-NDARAA536PTU_acq-VNavNorm_run-01_T1w.nii.gz",
        "derivatives/qsiprep/sub-NDARAA536PTU/ses-HBNsiteRU/anat/sub-NDARAA536PTU_ses-HBNsiteRU_desc-preproc_T1w.nii.gz",
    ],
    "UCSF-PDGM": ["UCSF-PDGM-v5/UCSF-PDGM-0433_FU007d_nifti/UCSF-PDGM-0433_FU007d_FLAIR_bias.nii.gz"],
    "BGSP": ["Sub0001_Ses1/Sub0001_Ses1_Scan01.nii.gz", "sub-0001_ses-01/anatomical_brain/x.nii.gz"],
    "ABIDE-II": [
        "ABIDEII-UCLA_Long/sub-50002/ses-2/anat/sub-50002_ses-2_run-1_T1w.nii.gz",
        "29006/session_1/anat_1/anat.nii.gz",
        "29006/followup_1/anat_1/anat.nii.gz",
        "GU_28756_1/anat_1/NIfTI-1/anat.nii.gz",
    ],
    "FCON1000": [
        "Beijing_Zang/sub00440/anat/mprage_anonymized.nii.gz",
        "Beijing_Zang_sub00440/anat_mprage_anonymized/NIfTI/scan_mprage_anonymized.nii.gz",
        "AnnArbor_a/derivatives/sub-04111_T1w_brain.nii.gz",
    ],
    "IXI": ["IXI-T1/IXI002-Guys-0828-T1.nii.gz", "IXI662-HH-2843-T2.nii.gz"],
    "ABIDE-I": [
        "RawDataBIDS/CMU_a/sub-0050642/anat/sub-0050642_T1w.nii.gz",
        "0050642/session_1/anat_1/mprage.nii.gz",
        "CMU_50642/anat/NIfTI/mprage.nii.gz",
    ],
    "SCHIZO": [
        "schizconnect_COBRE_images_22613/COBRE/A00000300/datauri/0001.dcm",
        "schizconnect_COBRE_images_22613/COBRE/sub-A00000300/ses-20110101/anat/sub-A00000300_ses-20110101_acq-mprage_run-01_T1w.nii.gz",
        "0040000/session_1/anat_1/mprage.nii.gz",
        "A00000300/T1.nii.gz",
    ],
    "ADHD-200": [
        "RawDataBIDS/Peking_3/sub-0010001/ses-1/anat/sub-0010001_ses-1_acq-4_run-1_T1w.nii.gz",
        "NYU/0010001/session_1/anat_1/mprage.nii.gz",
        "0010001_1/anat_1/NIfTI/rest.nii.gz",
        "Outputs/fmriprep/sub-0010001_ses-1_run-1_space-MNI152NLin2009cAsym_desc-preproc_T1w.nii.gz",
    ],
    "CoRR": [
        "CORR/RawDataBIDS/BMB_1/sub-0003001/ses-1/anat/sub-0003001_ses-1_run-1_T1w.nii.gz",
        "0003001/session_1/anat_1/anat.nii.gz",
        "BMB_3001_baseline/anat_1/NIfTI/anat.nii.gz",
    ],
    "OASIS-1": [
        "disc1/OAS1_0001_MR1/RAW/OAS1_0001_MR1_mpr-1_anon.hdr",
        "disc1/OAS1_0001_MR1/PROCESSED/MPRAGE/SUBJ_111/OAS1_0001_MR1_mpr_n4_anon_sbj_111.hdr",
        "disc1/OAS1_0001_MR1/PROCESSED/MPRAGE/T88_111/OAS1_0001_MR1_mpr_n4_anon_111_t88_gfc.hdr",
        "disc1/OAS1_0001_MR1/PROCESSED/MPRAGE/T88_111/OAS1_0001_MR1_mpr_n3_anon_111_t88_masked_gfc.hdr",
    ],
    "OASIS-2": ["OAS2_RAW_PART1/OAS2_0001_MR1/RAW/mpr-1.nifti.hdr"],
    "NKI-RS2": ["sub-A00008326/ses-MRI1/anat/sub-A00008326_ses-MRI1_T1w.nii.gz"],
    "SRI24": ["sri24_T1.nii.gz"],
}
NOT_IMAGES = ["README.nii.gz", "3906-3.nift.img", "sub-1/func/sub-1_bold.nii.gz", "T1w/T1w_restore.nii.gz"]


@pytest.mark.parametrize("name", COHORTS)
def test_definition_is_complete(name):
    definition = load_definition(name)
    assert definition.name == name
    assert definition.licence.name
    assert definition.licence.access
    assert "diagnosis" in definition.fields or name == "SRI24"
    if name != "SRI24":
        assert definition.paper.volumes >= definition.paper.subjects
        assert set(definition.paper.diagnoses) <= set(DIAGNOSES)


def test_the_papers_eighteen():
    papers = [load_definition(name).paper for name in LAYOUTS]
    assert (len(papers), sum(p.volumes for p in papers), sum(p.subjects for p in papers)) == (18, 35309, 17399)
    assert set(COHORTS) == {*LAYOUTS, "SRI24"}


def test_prefixes_keep_labels_apart():
    prefixes = [load_definition(name).prefix for name in COHORTS]
    assert len(set(prefixes)) == len(prefixes)


@pytest.mark.parametrize(("name", "path"), [(name, path) for name, paths in PATHS.items() for path in paths])
def test_documented_paths_match(name, path):
    assert any(re.search(pattern.pattern, path) for pattern in load_definition(name).images)


@pytest.mark.parametrize("name", COHORTS)
def test_other_paths_do_not_match(name):
    for path in NOT_IMAGES:
        assert not any(re.search(pattern.pattern, path) for pattern in load_definition(name).images), path


@pytest.mark.parametrize("name", COHORTS)
def test_as_published_is_explained_and_changes_something(name):
    definition = load_definition(name)
    published = load_definition(name, as_published=True)
    if definition.as_published is None:
        assert published == definition
    else:
        assert published != definition
        assert all(reason.endswith(".") for reason in definition.as_published.why)


# What no source says, or only memory does: it must not be told as a fact before someone has looked at the real cohort.
UNCONFIRMED = {
    "ADNI": ("defaced", "GDTOTAL", "APGEN1", "manufacturer", "PASS"),
    "PPMI": ("defaced", "MCATOT"),
    "UPENN-GBM": ("not bias corrected",),
    "HCP-YA": ("450 families",),
    "HBN": ("defaced", "Scanner model and field strength"),
    "BGSP": ("defaced", "File names inside", "Cambridge_Buckner"),
    "FCON1000": ("Field strengths", "oblique", "Cambridge_Buckner"),
    "IXI": ("orientation",),
    "SCHIZO": ("defaced", "T2", "CoRR MRN_1"),
    "ADHD-200": ("defaced", "KKI", "CoRR"),
    "CoRR": ("defaced", "NKI_1", "NYU_1"),
    "OASIS-1": ("OASIS-2",),
    "OASIS-2": ("defaced", "OASIS-1"),
    "NKI-RS2": ("Where the data lie", "3 T"),
}
# (cohort, field, confidence) of columns whose coding was not seen in a source.
DOUBTFUL = [
    ("ADNI", "gds", "unconfirmed"),
    ("ADNI", "apoe", "unconfirmed"),
    ("HBN", "scanner_model", "unconfirmed"),
    ("HBN", "field_strength", "unconfirmed"),
    ("HBN", "vendor", "medium"),
    ("BGSP", "age_at_scan", "medium"),
    ("BGSP", "sex", "medium"),
    ("BGSP", "education_years", "medium"),
    ("NKI-RS", "diagnosis", "low"),
    ("NKI-RS2", "diagnosis", "low"),
]


@pytest.mark.parametrize(("name", "words"), UNCONFIRMED.items())
def test_facts_that_no_source_confirms_stay_marked(name, words):
    marked = load_definition(name).unconfirmed
    assert not [word for word in words if not any(word in statement for statement in marked)]


@pytest.mark.parametrize(("name", "field", "confidence"), DOUBTFUL)
def test_doubtful_fields_stay_marked(name, field, confidence):
    assert load_definition(name).fields[field][0].confidence == confidence


def test_doubtful_definitions_stay_marked():
    confidence = {name: load_definition(name).confidence for name in COHORTS}
    assert confidence["NKI-RS2"] == "low"
    assert {confidence[name] for name in ("HBN", "BGSP", "FCON1000", "SCHIZO")} == {"medium"}


def write(tmp_path, **changes):
    content = {
        "name": "OWN",
        "title": "Own study",
        "prefix": "OWN",
        "licence": {"name": "CC0", "access": "ours"},
        "images": {"flat": {"pattern": r"(?P<subject>\d+)_T1\.nii$", "example": "7_T1.nii", "modality": "T1"}},
    } | changes
    path = tmp_path / "OWN.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"fields": {"agee": {"constant": 3}}}, "unknown fields ['agee']"),
        ({"fields": {"sex": {"constant": "M", "group": "site"}}}, "exactly one of"),
        ({"fields": {"sex": {"table": "people", "columns": ["sex"]}}}, "no table 'people'"),
        ({"fields": {"vendor": {"lookup": "scanner"}}}, "no lookup 'scanner'"),
        ({"ratings": [{"table": "qc", "column": "PASS", "order": [1, "", 0]}]}, "no table 'qc'"),
        ({"ratings": [{"table": "qc", "column": "PASS", "order": [1, 0]}]}, "images without a rating"),
        ({"fields": {"site": {"lookup": "s"}}, "lookups": {"s": {"a": {"site": "b"}}}, "extra": 1}, "extra"),
        ({"images": {"x": {"pattern": "(", "example": "a", "modality": "T1"}}}, "not a regular expression"),
        ({"images": {"x": {"pattern": "(?P<subject>a)", "example": "b", "modality": "T1"}}}, "its own example"),
        ({"images": {"x": {"pattern": "(?P<id>a)", "example": "a", "modality": "T1"}}}, "has no group ['subject']"),
        ({"tables": {"t": {"files": ["t.csv"], "key": "{id}", "date": "D"}}}, "within_days"),
        (
            {
                "tables": {"t": {"files": ["t.csv"], "key": "{id}"}},
                "fields": {"sex": {"table": "t", "columns": ["s"], "codes": {1: "male"}}},
            },
            "['male'] are not among",
        ),
    ],
)
def test_a_wrong_definition_names_the_key(tmp_path, changes, words):
    with pytest.raises(BrainG3NError) as caught:
        load_definition("OWN", write(tmp_path, **changes))
    assert words in str(caught.value)
    assert "OWN.yaml" in str(caught.value)


def test_a_cohort_without_a_definition_names_those_known():
    with pytest.raises(BrainG3NError, match=r"no definition of cohort 'NONE'.*ABIDE-I.*docs/cohorts.md"):
        load_definition("NONE")


def test_null_takes_a_layout_out(tmp_path):
    path = write(tmp_path, as_published={"why": ["So."], "changes": {"images": {"flat": None}}})
    with pytest.raises(BrainG3NError, match="at least 1"):
        load_definition("OWN", path, as_published=True)
