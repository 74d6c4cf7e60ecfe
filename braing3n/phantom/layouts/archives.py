"""Layouts of IXI, ADNI and UPENN-GBM, the cohorts that the demo runs on."""

from __future__ import annotations

from datetime import date, timedelta

from braing3n.phantom.layouts.tree import Tree, visits


def ixi(tree: Tree, volumes: int, subjects: int, traps: bool) -> None:
    """Flat NIfTI files and `IXI.xls`; where volumes are fewer than two a subject, some have one modality only."""
    sites = {"Guys": ("Philips", 1.5), "HH": ("Philips", 3.0), "IOP": ("GE", 1.5)}
    absent = 2 * subjects - volumes
    rows: list[list] = [["IXI_ID", "SEX_ID (1=m, 2=f)", "QUALIFICATION_ID", "AGE", "STUDY_DATE"]]
    for i in range(subjects):
        number, age, code = i + 1, 20 + i % 60 + 0.25, 1 + i % 2
        site = list(sites)[i % 3]
        rows.append([float(number), float(code), 4.0, age, "2005-06-01"])
        for modality in ("T1", "T2"):
            if i < absent and modality == ("T1" if i == 0 else "T2"):
                continue
            path = tree.nifti(f"IXI{number:03d}-{site}-{1000 + i}-{modality}.nii.gz")
            tree.keep(
                path,
                subject_id=f"IXI:IXI{number:03d}",
                modality=modality,
                age_at_scan=age,
                sex="MF"[code - 1],
                diagnosis="HC",
                vendor=sites[site][0],
                field_strength=sites[site][1],
                education_years=None,
            )
    if traps:
        _ixi_traps(tree, rows, subjects)
    tree.excel("IXI.xls", rows)


def _ixi_traps(tree: Tree, rows: list[list], subjects: int) -> None:
    last = subjects + 1
    rows.insert(1, [1.0, 1.0, 4.0, None, "2005-06-01"])  # a second row of person 1 without an age, standing first
    rows += [[float(last), 1.0, 4.0, 50.0, ""], [float(last), 2.0, 4.0, 50.0, ""]]  # sex contradicts itself
    path = tree.nifti(f"IXI{last:03d}-Guys-2000-T1.nii.gz")
    tree.keep(path, subject_id=f"IXI:IXI{last:03d}", modality="T1", sex=None, age_at_scan=50.0)
    path = tree.nifti(f"IXI{last + 1:03d}-HH-2001-T1.nii.gz")  # no row at all
    tree.keep(path, subject_id=f"IXI:IXI{last + 1:03d}", modality="T1", sex=None, age_at_scan=None)
    tree.drop(tree.nifti("IXI001-Guys-1000-PD.nii.gz"), "proton density")
    tree.drop(tree.nifti("IXI001-Guys-1000-DTI-07.nii.gz"), "diffusion")
    tree.drop(tree.nifti("IXI777-Guys-3000-T1.nii.gz", shape=(128, 128, 64, 20)), "4D")
    tree.bytes("IXI778-Guys-3001-T1.nii.gz", b"")
    tree.drop("IXI778-Guys-3001-T1.nii.gz", "empty")
    tree.bytes("IXI779-Guys-3002-T1.nii.gz", b"\x1f\x8b\x08\x00 not gzip")
    tree.drop("IXI779-Guys-3002-T1.nii.gz", "header")


def adni(tree: Tree, volumes: int, subjects: int, traps: bool) -> None:
    """LONI tree, four of five sessions processed NIfTI, the fifth DICOM; visits half a year apart."""
    demographics: list[list] = [["PHASE", "PTID", "RID", "VISCODE", "PTGENDER", "PTDOB", "PTHAND", "PTEDUCAT"]]
    diagnoses: list[list] = [["PTID", "VISCODE2", "EXAMDATE", "DIAGNOSIS"]]
    mmse: list[list] = [["PTID", "VISCODE", "VISDATE", "MMSCORE"]]
    cdr: list[list] = [["PTID", "VISCODE", "VISDATE", "CDGLOBAL"]]
    apoe: list[list] = [["PTID", "APGEN1", "APGEN2"]]
    for i, visit in visits(volumes, subjects):
        subject, born, code = f"{i % 900 + 1:03d}_S_{i + 1:04d}", date(1930 + i % 25, 1 + i % 12, 15), 1 + i % 2
        scan = date(2008, 3, 1) + timedelta(days=182 * visit + i % 28)
        if visit == 0:
            demographics.append(["ADNI1", subject, i, "sc", code, f"{born.month:02d}/{born.year}", 1, 16])
            demographics.append(["ADNI1", subject, i, "m12", -4, "", -4, -4])  # later rows leave out what is known
            apoe.append([subject, 4, 3])
        state = 1 + (i + visit) % 3
        seen = scan + timedelta(days=10)
        diagnoses.append([subject, f"m{6 * visit:02d}", seen.isoformat(), state])
        mmse.append([subject, f"m{6 * visit:02d}", seen.isoformat(), 30 - 5 * (state - 1)])
        cdr.append([subject, f"m{6 * visit:02d}", seen.isoformat(), (0, 0.5, 1)[state - 1]])
        folder = f"ADNI/{subject}/{{}}/{scan.isoformat()}_09_24_33.0/I{100000 + 100 * i + visit}"
        if (i + visit) % 5:
            name = f"ADNI_{subject}_MR_MT1__GradWarp__N3m_I{100000 + 100 * i + visit}.nii"
            path = tree.nifti(f"{folder.format('MT1__GradWarp__N3m')}/{name}")
        else:
            fields = {"Manufacturer": "SIEMENS", "MagneticFieldStrength": 2.89, "ManufacturerModelName": "TrioTim"}
            path = tree.dicom(folder.format("MPRAGE"), f"ADNI_{subject}", **fields)
        tree.keep(
            path,
            subject_id=f"ADNI:{subject}",
            session_id=scan.strftime("%Y%m%d"),
            modality="T1",
            source_format="nifti" if path.endswith(".nii") else "dicom",
            entry_bias_corrected=path.endswith(".nii"),
            sex="MF"[code - 1],
            age_at_scan=round((scan - born).days / 365.25, 3),
            diagnosis=("HC", "MCI", "AD")[state - 1],
            mmse=30.0 - 5 * (state - 1),
            cdr=(0, 0.5, 1)[state - 1],
            apoe="E3/E4",
            score_date_delta_days=10.0,
            education_years=16.0,
            handedness="R",
            vendor=None if path.endswith(".nii") else "Siemens",
            field_strength=None if path.endswith(".nii") else 3.0,
        )
    if traps:
        _adni_traps(tree, demographics, diagnoses, mmse)
    tree.text("PTDEMOG_05Jan2025.csv", demographics)
    tree.text("DXSUM_05Jan2025.csv", diagnoses)
    tree.text("MMSE_05Jan2025.csv", mmse)
    tree.text("CDR_05Jan2025.csv", cdr)
    tree.text("APOERES_05Jan2025.csv", apoe)


_ADNI_XML = """<?xml version="1.0" encoding="UTF-8"?>
<idaxs><project xmlns=""><siteKey>941</siteKey><subject><subjectIdentifier>{subject}</subjectIdentifier>
<researchGroup>{group}</researchGroup><subjectSex>F</subjectSex><study><subjectAge>70.1</subjectAge><series>
<dateAcquired>2010-05-05 10:00:00.0</dateAcquired><imagingProtocol><imageUID>{image}</imageUID><protocolTerm>
<protocol term="Manufacturer">GE MEDICAL SYSTEMS</protocol><protocol term="Field Strength">1.494</protocol>
</protocolTerm></imagingProtocol></series></study></subject></project></idaxs>
"""


def _adni_traps(tree: Tree, demographics: list[list], diagnoses: list[list], mmse: list[list]) -> None:
    subject, day = "941_S_9001", "2010-05-05"
    demographics.append(["ADNI2", subject, 9001, "bl", 2, "05/1940", 2, -4])
    # The nearest visit within half a year decides, one 300 days off says nothing; -1 and -4 are no scores.
    diagnoses += [[subject, "bl", "2010-05-01", 2], [subject, "m24", "2012-05-20", 3]]
    mmse += [[subject, "bl", "2010-05-01", -1], [subject, "m06", "2010-08-01", 27], [subject, "m24", "2012-05-20", -4]]
    tree.text("DXSUM_20Nov2019.csv", [["PTID", "VISCODE2", "EXAMDATE", "DIAGNOSIS"], [subject, "bl", "2010-05-01", 3]])

    def image(series: str, number: int, when: str = day, ending: str = ".nii") -> str:
        folder = f"ADNI/{subject}/{series}/{when}_10_00_00.0/I{number}"
        return tree.nifti(f"{folder}/ADNI_{subject}_MR_{series}_I{number}{ending}")

    best = image("MT1__GradWarp__N3m", 900002)
    tree.keep(best, subject_id=f"ADNI:{subject}", diagnosis="MCI", mmse=27.0, score_date_delta_days=88.0, apoe=None)
    tree.kept[-1] |= {"education_years": None, "handedness": "L", "entry_bias_corrected": True}
    # What the archive says about an image: the group at enrolment is not the diagnosis at this scan.
    tree.kept[-1] |= {"diagnosis_detail": "EMCI", "vendor": "GE", "field_strength": 1.5}
    xml = _ADNI_XML.format(subject=subject, group="EMCI", image=900002)
    tree.bytes(f"ADNI/ADNI_{subject}_MT1__GradWarp__N3m_S1_I900002.xml", xml.encode())
    for number, series in enumerate(("MPR__GradWarp__B1_Correction__N3__Scaled", "MT1__N3m", "MPR__GradWarp"), 900003):
        tree.drop(image(series, number), "repeat")
    raw = f"ADNI/{subject}/MP-RAGE/{day}_10_00_00.0/I900001"
    tree.drop(tree.dicom(raw, "raw"), "repeat")
    tree.drop(image("Sagittal_3D_FLAIR", 900010), "T1 only")
    tree.drop(tree.dicom(f"ADNI/{subject}/3_Plane_Localizer/{day}_10_00_00.0/I900011", "loc"), "no structural T1")
    first = tree.dicom(f"ADNI/{subject}/MP-RAGE/2012-06-01_10_00_00.0/I900020", "first")
    tree.keep(first, subject_id=f"ADNI:{subject}", session_id="20120601", diagnosis="AD", mmse=None)
    tree.drop(tree.dicom(f"ADNI/{subject}/MP-RAGE_REPEAT/2012-06-01_10_00_00.0/I900021", "again"), "repeat")
    _adni_quality(tree, demographics, diagnoses)
    late = image("MT1__GradWarp__N3m", 900030, "2015-01-01")
    tree.keep(late, subject_id=f"ADNI:{subject}", session_id="20150101", diagnosis=None, score_date_delta_days=None)


def _adni_quality(tree: Tree, demographics: list[list], diagnoses: list[list]) -> None:
    """A visit whose readers prefer the second acquisition, and one whose first acquisition failed after processing."""
    subject, first, second = "941_S_9002", "2013-03-05", "2014-03-05"
    demographics.append(["ADNI2", subject, 9002, "bl", 1, "05/1945", 1, 12])
    diagnoses += [[subject, "bl", first, 1], [subject, "m12", second, 1]]

    def folder(series: str, day: str, image: str) -> str:
        return f"ADNI/{subject}/{series}/{day}_10_00_00.0/{image}"

    kept = tree.dicom(folder("MP-RAGE_REPEAT", first, "I900041"), "x")
    tree.keep(kept, subject_id=f"ADNI:{subject}", session_id="20130305", diagnosis="HC")
    tree.drop(tree.dicom(folder("MP-RAGE", first, "I900040"), "x"), f"repeat: {kept}")
    tree.drop(tree.dicom(folder("MPRAGE_SENSE", first, "I900042"), "x"), f"repeat: {kept}")
    columns = ["RID", "loni_image", "series_type", "series_quality", "series_selected"]
    readers = [columns, [9002, "I900041", "T1", 2, 1], [9002, "I900040", "T1", 1, 0], [9002, "I900042", "T1", -1, 0]]
    tree.text("MAYOADIRL_MRI_IMAGEQC_12_08_15.csv", [*readers, [9002, "I900043", "fMRI", 9, 9]])

    name = f"ADNI_{subject}_MR_MT1__GradWarp__N3m_Br_1"
    failed = f"{folder('MT1__GradWarp__N3m', second, 'I900050')}/{name}_S60_I900050.nii"
    passed = f"{folder('MT1__GradWarp__N3m', second, 'I900051')}/{name}_S61_I900051.nii"
    tree.drop(tree.nifti(failed), f"repeat: {passed}")
    tree.keep(tree.nifti(passed), subject_id=f"ADNI:{subject}", session_id="20140305", diagnosis="HC")
    tree.text("MRIQUALITY.csv", [["RID", "LONIUID", "PASS"], [9002, "S60", 0], [9002, "S61", 1]])


def upenn_gbm(tree: Tree, volumes: int, subjects: int, traps: bool) -> None:
    """NIfTI-files of TCIA: four stripped modalities a session."""
    rows: list[list] = [
        ["ID", "Gender", "Age_at_scan_years", "Survival_from_surgery_days_UPDATED", "IDH1", "MGMT", "KPS"]
    ]
    modalities = {"T1": "T1", "T1GD": "T1c", "T2": "T2", "FLAIR": "FLAIR"}
    base = "NIfTI-files/images_structural"
    for i, _ in visits(volumes // 4, subjects):
        subject = f"UPENN-GBM-{i + 1:05d}"
        mutant, methylated = i % 29 == 7, i % 3 == 0
        status = "Methylated" if methylated else "Unmethylated"
        rows.append([f"{subject}_11", "MF"[i % 2], 40.5 + i % 40, 400, "Mutated" if mutant else "Wildtype", status, 90])
        for name, modality in modalities.items():
            path = tree.nifti(f"{base}/{subject}_11/{subject}_11_{name}.nii.gz", (240, 240, 155))
            tree.keep(
                path,
                subject_id=f"UPENN-GBM:{subject}",
                session_id="11",
                modality=modality,
                age_at_scan=40.5 + i % 40,
                sex="MF"[i % 2],
                diagnosis="GBM",
                tumour_grade=4.0,
                idh1="mutant" if mutant else "wildtype",
                mgmt="methylated" if methylated else "unmethylated",
                entry_stripped=True,
                shares_grid=True,
            )
    if traps:
        subject = "UPENN-GBM-90001"
        rows.append([f"{subject}_11", "F", 61.25, "Not Available", "NOS/NEC", "Indeterminate", "Not Available"])
        rows.append([f"{subject}_21", "F", 62.5, "Not Available", "Wildtype", "Not Available", "Not Available"])
        path = tree.nifti(f"{base}/{subject}_11/{subject}_11_T1.nii.gz")
        tree.keep(path, subject_id=f"UPENN-GBM:{subject}", idh1=None, mgmt=None, age_at_scan=61.25)
        tree.drop(tree.nifti(f"{base}/{subject}_21/{subject}_21_T1.nii.gz"), "after surgery")
        tree.drop(tree.nifti(f"{base}/{subject}_11/old/{subject}_11_T1.nii.gz"), "old")
        tree.drop(tree.nifti(f"NIfTI-files/automated_segm/{subject}_11_automated_approx_segm.nii.gz"), "segmentation")
        twin = f"NIfTI-files/images_structural_unstripped/{subject}_11/{subject}_11_T1_unstripped.nii.gz"
        tree.drop(tree.nifti(twin), "repeat")
    tree.text("UPENN-GBM_clinical_info_v2.1.csv", rows)
