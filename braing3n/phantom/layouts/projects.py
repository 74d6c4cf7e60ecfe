"""Layouts of PPMI, HCP-YA, UCSF-PDGM, SCHIZO, OASIS-1 and OASIS-2: single projects with conventions of their own."""

from __future__ import annotations

from datetime import date, timedelta

from braing3n.phantom.layouts.tree import Tree, visits

_GDS = ["GDSSATIS", "GDSDROPD", "GDSEMPTY", "GDSBORED", "GDSGSPIR", "GDSAFRAD", "GDSHAPPY", "GDSHLPLS", "GDSHOME"]
_GDS += ["GDSMEMRY", "GDSALIVE", "GDSWRTLS", "GDSENRGY", "GDSHOPLS", "GDSBETER"]
_SCOPA = [f"SCAU{number}" for number in range(1, 26)]
_3D = {"SliceThickness": 1.0, "NumberOfFrames": 176, "Manufacturer": "SIEMENS", "MagneticFieldStrength": 3.0}


def ppmi(tree: Tree, volumes: int, subjects: int, traps: bool) -> None:
    """LONI tree of DICOM series; a year between visits, at which T1, FLAIR and T2 are acquired as volumes remain."""
    tables = _ppmi_tables()
    series = {"T1": "MPRAGE_GRAPPA", "FLAIR": "3D_FLAIR", "T2": "T2_SPACE_3D"}
    sessions = -(-volumes // 2)
    remaining = volumes
    plan = visits(sessions, subjects)
    for position, (i, visit) in enumerate(plan):
        scan, born = date(2011, 1 + i % 12, 15) + timedelta(days=365 * visit), date(1945 + i % 30, 6, 15)
        sex, cohort = i % 2, i % 4
        _ppmi_rows(tables, 3000 + i, visit, scan, born, sex, cohort)
        spare = remaining - (len(plan) - position)  # every later session still needs one
        modalities = list(series)[: 1 + min(2, max(spare, 0))]
        remaining -= len(modalities)
        for number, modality in enumerate(modalities):
            image = f"I{1000000 + 1000 * i + 10 * visit + number}"
            folder = f"PPMI/{3000 + i}/{series[modality]}/{scan.isoformat()}_13_03_45.0/{image}"
            tree.keep(
                tree.dicom(folder, f"PPMI_{3000 + i}_{image}", 1, **_3D),
                subject_id=f"PPMI:{3000 + i}",
                session_id=scan.strftime("%Y%m%d"),
                modality=modality,
                sex="FM"[sex],
                age_at_scan=(scan - born).days / 365.25,
                diagnosis=("PD", "HC", "SWEDD", "Prodromal")[cohort],
                moca=30.0 - visit,
                updrs3=20.0 + visit,
                gds=6.0,
                scopa_aut=24.0,
                apoe="E3/E4",
                education_years=16.0,
                vendor="Siemens",
                field_strength=3.0,
            )
    if traps:
        _ppmi_traps(tree, tables)
    for name, rows in tables.items():
        tree.text(f"{name}.csv", rows)


def _ppmi_tables() -> dict[str, list[list]]:
    return {
        "Participant_Status_05Jan2025": [["PATNO", "COHORT", "COHORT_DEFINITION", "ENROLL_AGE"]],
        "Demographics_05Jan2025": [["PATNO", "EVENT_ID", "BIRTHDT", "SEX", "HANDED"]],
        "Age_at_visit_05Jan2025": [["PATNO", "EVENT_ID", "AGE_AT_VISIT"]],
        "MDS-UPDRS_Part_III_05Jan2025": [["PATNO", "EVENT_ID", "INFODT", "PDSTATE", "NP3TOT"]],
        "Montreal_Cognitive_Assessment__MoCA__05Jan2025": [["PATNO", "EVENT_ID", "INFODT", "MCATOT"]],
        "Geriatric_Depression_Scale__Short_Version__05Jan2025": [["PATNO", "EVENT_ID", "INFODT", *_GDS]],
        "SCOPA-AUT_05Jan2025": [["PATNO", "EVENT_ID", "INFODT", *_SCOPA, "SCAU23A"]],
        "iu_genetic_consensus_05Jan2025": [["PATNO", "APOE"]],
        "Socio-Economics_05Jan2025": [["PATNO", "EVENT_ID", "EDUCYRS"]],
    }


def _ppmi_rows(tables, patient: int, visit: int, scan: date, born: date, sex: int, cohort: int) -> None:
    status, people, ages, motor, moca, gds, scopa, genes, school = tables.values()
    event, month = f"V{4 * visit:02d}" if visit else "BL", f"{scan.month:02d}/{scan.year}"
    if visit == 0:
        label = ("Parkinson's Disease", "Healthy Control", "SWEDD", "Prodromal")[cohort]
        age = round((scan - born).days / 365.25, 2)
        status.append([patient, cohort + 1, label, age])
        people.append([patient, "SC", f"{born.month:02d}/{born.year}", sex, 1])
        genes.append([patient, "E4/E3"])
        school.append([patient, "SC", 16])
    ages.append([patient, event, round((scan - born).days / 365.25, 2)])
    motor.append([patient, event, month, "ON", 5])  # the better score on medication stands first
    motor.append([patient, event, month, "OFF", 20 + visit])
    moca.append([patient, event, month, 30 - visit])
    # Every item 1: the ten plain ones count 1, the five reversed ones 0; minus four plain ones left at 0.
    gds.append([patient, event, month, *(0 if name in _GDS[11:] and name != "GDSENRGY" else 1 for name in _GDS)])
    gds[-1][3 + _GDS.index("GDSDROPD")] = 0
    # Twenty-one items of 1 and one catheter answer (9 counts 3); sexual items: blank for the other sex, 9 counts 0.
    answers: list = [1] * 20 + [9] + ([9, 1, "", ""] if sex else ["", "", 1, 9])
    scopa.append([patient, event, month, *answers, "text"])


def _ppmi_traps(tree: Tree, tables: dict[str, list[list]]) -> None:
    base = "PPMI/9001/{}/2014-05-02_10_00_00.0/{}"
    tree.keep(tree.dicom(base.format("AX_T1_FLAIR", "I1"), n_slices=1, **_3D), subject_id="PPMI:9001", modality="T1")
    tree.kept[-1] |= {"sex": "F", "updrs3": 30.0, "scopa_aut": None, "age_at_scan": None}
    thick = {"SliceThickness": 5.0, "NumberOfFrames": 30}
    tree.drop(tree.dicom(base.format("Axial_T2", "I2"), n_slices=1, **thick), "fewer than 50")
    apart = {"SliceThickness": 5.0, "NumberOfFrames": 60}
    tree.drop(tree.dicom(base.format("Axial_FLAIR", "I3"), n_slices=1, **apart), "mm apart")
    tree.drop(tree.dicom(base.format("AX_DUAL_TSE", "I4"), n_slices=1, **_3D), "two echoes")
    tree.drop(tree.dicom(base.format("DTI_gated", "I5"), n_slices=1, **_3D), "no structural")
    tree.drop(tree.dicom(base.format("SAG_T1_C+", "I6"), n_slices=1, **_3D), "contrast agent")
    # An old release codes sex otherwise: 1 is a woman there. 101 is a score of part III, not 'unable to rate'.
    tables["Randomization_table"] = [["PATNO", "GENDER"], [9001, 1], [9002, 2]]
    _, _, _, motor, _, _, scopa, _, _ = list(tables.values())[:9]
    motor.append([9001, "BL", "05/2014", "", 30])
    scopa.append([9001, "BL", "05/2014", *[1] * 10, "", *[1] * 14, ""])  # an unanswered item leaves no total
    later = tree.dicom("PPMI/9002/MPRAGE/2015-06-01_10_00_00.0/I7", n_slices=1, **_3D)
    tree.keep(later, subject_id="PPMI:9002", sex="M", updrs3=101.0, modality="T1")
    motor += [[9002, "BL", "06/2012", "OFF", 12], [9002, "V08", "06/2015", "OFF", 101]]


def hcp_ya(tree: Tree, volumes: int, subjects: int, traps: bool) -> None:
    """Minimally processed T1 and T2 a person, ages in bins, families in the restricted table."""
    bins = {"22-25": 23.5, "26-30": 28.0, "31-35": 33.0, "36+": 37.0}
    rows: list[list] = [["Subject", "Release", "Gender", "Age", "MMSE_Score"]]
    restricted: list[list] = [["Subject", "Age_in_Yrs", "Handedness", "SSAGA_Educ", "Family_ID"]]
    for i, _ in visits(volumes // 2, subjects):
        subject, age, family = 100004 + i, list(bins)[i % 4], f"{51000 + i // 2}_82000"
        rows.append([subject, "S1200", "MF"[i % 2], age, 29])
        restricted.append([subject, 22 + i % 14, (95, -80, 20)[i % 3], 11 + i % 7, family])
        for name, modality in (("T1w", "T1"), ("T2w", "T2")):
            tree.keep(
                tree.nifti(f"{subject}/T1w/{name}_acpc_dc_restore_brain.nii.gz", (260, 311, 260), 0.7),
                subject_id=f"HCP-YA:{subject}",
                person_id=f"HCP-YA:family:{family}" if traps else f"HCP-YA:{subject}",
                modality=modality,
                age_at_scan=22.0 + i % 14 if traps else bins[age],
                age_is_binned=not traps,
                sex="MF"[i % 2],
                handedness="RLA"[i % 3] if traps else None,
                entry_stripped=True,
                entry_bias_corrected=True,
                shares_grid=True,
            )
    if traps:
        tree.text("RESTRICTED_user_1_1_2025.csv", restricted)
        tree.drop(tree.nifti("100004/MNINonLinear/T1w_restore_brain.nii.gz"), "MNI space")
        tree.drop(tree.nifti("100004/unprocessed/3T/T1w_MPR1/100004_3T_T1w_MPR1.nii.gz"), "repeat")
    tree.text("unrestricted_user_1_1_2025.csv", rows)


def ucsf_pdgm(tree: Tree, volumes: int, subjects: int, traps: bool) -> None:
    """A folder an exam with four digits, a table with three."""
    rows: list[list] = [
        ["ID", "Sex", "Age at MRI", "WHO CNS Grade", "Final pathologic diagnosis (WHO 2021)", "MGMT status", "IDH"]
    ]
    idh = {"wildtype": "wildtype", "mutated (NOS)": "mutant", "IDH1 p.R132H": "mutant", "Arg132His": "mutant"}
    for i, _ in visits(volumes // 4, subjects):
        grade, status = 2 + i % 3, list(idh)[i % 4]
        rows.append(
            [f"UCSF-PDGM-{i + 1:03d}", "MF"[i % 2], 30 + i % 50, grade, "Glioma", ("positive", "")[i % 2], status]
        )
        for modality in ("T1", "T1c", "T2", "FLAIR"):
            path = f"UCSF-PDGM-v5/UCSF-PDGM-{i + 1:04d}_nifti/UCSF-PDGM-{i + 1:04d}_{modality}_bias.nii.gz"
            tree.keep(
                tree.nifti(path, (240, 240, 155)),
                subject_id=f"UCSF-PDGM:{i + 1:04d}",
                modality=modality,
                session_id="baseline",
                age_at_scan=30.0 + i % 50,
                sex="MF"[i % 2],
                tumour_grade=float(grade),
                diagnosis="GBM" if grade == 4 else "Glioma",
                idh1=idh[status],
                mgmt=None if i % 2 else "methylated",
                entry_bias_corrected=True,
                entry_stripped=True,
            )
    if traps:
        rows.append(["UCSF-PDGM-900", "F", 44, 3, "Astrocytoma", "indeterminate", "IDH2 p.R172K"])
        rows.append(["UCSF-PDGM-900_FU007d", "F", 44, 4, "Astrocytoma", "negative", "wildtype"])
        base = "UCSF-PDGM-v5/UCSF-PDGM-0900_nifti/UCSF-PDGM-0900"
        tree.keep(tree.nifti(f"{base}_T1_bias.nii.gz"), idh1=None, mgmt=None, diagnosis="Glioma", tumour_grade=3.0)
        tree.drop(tree.nifti(f"{base}_T1.nii.gz"), "repeat")
        tree.drop(tree.nifti(f"{base}_ADC.nii.gz"), "diffusion")
        tree.drop(tree.nifti(f"{base}_tumor_segmentation.nii.gz"), "segmentation")
        followup = "UCSF-PDGM-v5/UCSF-PDGM-0900_FU007d_nifti/UCSF-PDGM-0900_FU007d_T1_bias.nii.gz"
        tree.drop(tree.nifti(followup), "follow-up")
    tree.text("UCSF-PDGM-metadata_v5.csv", rows)


def schizo(tree: Tree, volumes: int, subjects: int, traps: bool) -> None:
    """SchizConnect's newer export: BIDS-like, T1 and T2 a person."""
    labels = {"No_Known_Disorder": "HC", "Schizophrenia_Strict": "SCZ", "Schizoaffective": "SCZ-spectrum"}
    columns = ["study", "subjectid", "age", "sex", "dx", "field_strength", "img_date", "datauri", "maker", "model"]
    rows: list[list] = [columns]
    folder = "schizconnect_COBRE_images_22613/COBRE"
    for i, _ in visits(volumes // 2, subjects):
        subject, label = f"A{i + 300:08d}", list(labels)[i % 3]
        rows.append(
            [
                "COBRE",
                subject,
                20 + i % 40,
                ("male", "female")[i % 2],
                label,
                3,
                "2011-01-01",
                "x",
                "SIEMENS",
                "TrioTim",
            ]
        )
        base = f"{folder}/sub-{subject}/ses-20110101/anat/sub-{subject}_ses-20110101"
        for suffix, modality in (("acq-mprage_run-01_T1w", "T1"), ("acq-tse_run-01_T2w", "T2")):
            tree.keep(
                tree.nifti(f"{base}_{suffix}.nii.gz"),
                subject_id=f"SCHIZO:{subject}",
                modality=modality,
                sex="MF"[i % 2],
                age_at_scan=20.0 + i % 40,
                diagnosis=labels[label],
                vendor="Siemens",
                field_strength=3.0,
            )
    if traps:
        subject = "A99999999"
        rows.append(
            ["COBRE", subject, 30, "female", "Sibling_of_No_Known_Disorder", 3, "2011-01-01", "x", "SIEMENS", "TrioTim"]
        )
        base = f"{folder}/sub-{subject}/ses-20110101/anat/sub-{subject}_ses-20110101_acq-mprage"
        tree.drop(tree.nifti(f"{base}_run-01_T1w.nii.gz"), "sibling")
        tree.drop(tree.nifti(f"{base}_run-02_T1w.nii.gz", (176, 240, 256, 5)), "4D")
    tree.text("schizconnect_metaData_22613.csv", rows)


def oasis_1(tree: Tree, volumes: int, subjects: int, traps: bool) -> None:
    """Analyze pairs; CDR blank for the young; education as a category."""
    ratings = {0: "HC", 0.5: "MCI", 1: "AD", None: None}
    rows: list[list] = [["ID", "M/F", "Hand", "Age", "Educ", "SES", "MMSE", "CDR", "eTIV", "Delay"]]
    for i, visit in visits(volumes, subjects):
        scan, cdr = f"OAS1_{i + 1:04d}_MR{visit + 1}", list(ratings)[i % 4]
        age = 20 + i % 40 if cdr is None else 60 + i % 36
        rows.append([scan, "MF"[i % 2], "R", age, 1 + i % 5, "", 29 if cdr == 0 else None, cdr, 1500, "N/A"])
        stem = f"disc{1 + i % 12}/{scan}/PROCESSED/MPRAGE/SUBJ_111/{scan}_mpr_n{3 + i % 2}_anon_sbj_111"
        tree.keep(
            tree.analyze(stem, (176, 208, 176, 1)),
            subject_id=f"OASIS-1:OAS1_{i + 1:04d}",
            session_id=f"MR{visit + 1}",
            age_at_scan=float(age),
            sex="MF"[i % 2],
            cdr=cdr,
            diagnosis=ratings[cdr] or "HC",
            education_years=None,
            entry_axes="ASL",
            entry_bias_corrected=False,
            source_format="analyze",
        )
    if traps:
        scan = "OAS1_0900_MR1"
        rows.append([scan, "F", "R", 75, 2, "", None, None, 1400, "N/A"])  # old and never rated: nobody knows
        stem = f"disc12/{scan}/RAW/{scan}_mpr-{{}}_anon"
        tree.keep(tree.analyze(stem.format(1)), subject_id="OASIS-1:OAS1_0900", diagnosis=None, entry_axes="ASL")
        tree.drop(tree.analyze(stem.format(2)), "repeat")
        atlas = f"disc12/{scan}/PROCESSED/MPRAGE/T88_111/{scan}_mpr_n4_anon_111_t88"
        tree.drop(tree.analyze(f"{atlas}_gfc"), "repeat")
        tree.drop(tree.analyze(f"{atlas}_masked_gfc"), "repeat")
        tree.bytes(f"disc12/{scan}/RAW/{scan}_mpr-3_anon.hdr", b"half a pair")
        tree.drop(f"disc12/{scan}/RAW/{scan}_mpr-3_anon.hdr", "other half")
    tree.excel("oasis_cross-sectional-5708aa0a98d82080.xlsx", rows)


def oasis_2(tree: Tree, volumes: int, subjects: int, traps: bool) -> None:
    """Up to five visits; the group is one label a person, the CDR one a visit."""
    columns = ["Subject ID", "MRI ID", "Group", "Visit", "MR Delay", "M/F", "Hand", "Age", "EDUC", "SES", "MMSE", "CDR"]
    rows: list[list] = [columns]
    for i, visit in visits(volumes, subjects):
        subject, cdr = f"OAS2_{i + 1:04d}", 0.5 if i % 3 == 0 and visit else 0
        scan, age = f"{subject}_MR{visit + 1}", 60 + i % 30 + visit
        group = "Converted" if i % 3 == 0 else "Nondemented"
        rows.append([subject, scan, group, visit + 1, 500 * visit, "MF"[i % 2], "R", age, 12 + i % 6, "", 29, cdr])
        tree.keep(
            tree.analyze(f"OAS2_RAW_PART{1 + i % 2}/{scan}/RAW/mpr-1", ending=".nifti"),
            subject_id=f"OASIS-2:{subject}",
            session_id=f"MR{visit + 1}",
            age_at_scan=float(age),
            diagnosis="MCI" if cdr else "HC",
            diagnosis_detail=group,
            education_years=12.0 + i % 6,
            entry_axes="ASL",
        )
    if traps:
        tree.drop(tree.analyze("OAS2_RAW_PART1/OAS2_0001_MR1/RAW/mpr-2", ending=".nifti"), "repeat")
        tree.bytes("OAS2_RAW_PART1/OAS2_0001_MR1/RAW/3906-3.nift.img", b"junk")
        tree.drop("OAS2_RAW_PART1/OAS2_0001_MR1/RAW/3906-3.nift.img", "no image pattern")
    tree.excel("oasis_longitudinal_demographics-8d83e569fa2e2d30.xlsx", rows)
