"""Layouts of the cohorts of the International Neuroimaging Data-sharing Initiative: a folder a site, mostly BIDS."""

from __future__ import annotations

from braing3n.phantom.layouts.tree import Tree, visits


def nki_rs(tree: Tree, volumes: int, subjects: int, traps: bool) -> None:
    """BIDS with sessions; ages per session in aws_links.csv, one age a person in participants.tsv."""
    names = ("BAS1", "BAS2", "BAS3", "FLU1", "FLU2", "TRT")
    links: list[list] = [["subject", "session", "filepath", "age", "gender", "handedness"]]
    people: list[list] = [["participant_id", "age", "sex", "handedness"]]
    for i, visit in visits(volumes, subjects):
        subject, session, age = f"A{i + 1:08d}", names[visit], 20.5 + i % 50 + 2 * visit
        sex, hand = ("MALE", "FEMALE")[i % 2], ("RIGHT", "LEFT")[i % 7 == 0]
        path = f"RawDataBIDSLatest/sub-{subject}/ses-{session}/anat/sub-{subject}_ses-{session}_T1w.nii.gz"
        links.append([subject, session, path, age, sex[0], hand])
        if visit == 0:
            people.append([subject, age, sex, hand])
        tree.keep(
            tree.nifti(path),
            subject_id=f"NKI-RS:{subject}",
            person_id=f"NKI:{subject}",
            age_at_scan=age,
            sex=sex[0],
            handedness=hand[0],
            diagnosis="HC",
            field_strength=3.0,
        )
    if traps:
        subject = "A99999999"  # only in participants.tsv, whose age is the baseline's
        people.append([subject, 40, "n/a", "n/a"])
        base = f"RawDataBIDSLatest/sub-{subject}/ses-{{0}}/anat/sub-{subject}_ses-{{0}}"
        first = tree.nifti(f"{base.format('BAS1')}_T1w.nii.gz")
        tree.keep(first, subject_id=f"NKI-RS:{subject}", age_at_scan=40.0, age_source="baseline", sex=None)
        later = tree.nifti(f"{base.format('FLU1')}_run-1_T1w.nii.gz")
        tree.keep(later, subject_id=f"NKI-RS:{subject}", age_at_scan=None, sex=None)
        tree.drop(tree.nifti(f"{base.format('FLU1')}_run-2_T1w.nii.gz"), "repeat")
        tree.drop(tree.nifti(f"{base.format('BAS1')}_FLAIR.nii.gz"), "T1 only")
        tree.drop(tree.nifti(f"{base.format('TRT')}_T1w.nii.gz", content=first), f"same content as {first}")
        tree.drop(tree.nifti(f"RawDataBIDSLatest/sub-{subject}/ses-BAS1/func/x_bold.nii.gz"), "not anatomical")
    tree.text("aws_links.csv", links)
    tree.text("participants.tsv", people, "\t")


def nki_rs2(tree: Tree, volumes: int, subjects: int, traps: bool) -> None:
    """BIDS; every second person is one of NKI-RS."""
    people: list[list] = [["participant_id"]]
    for i, visit in visits(volumes, subjects):
        subject = f"A{i + 1:08d}" if i % 2 == 0 else f"A{50000000 + i:08d}"
        people.append([subject])
        base = f"sub-{subject}/ses-MRI{visit + 1}/anat/sub-{subject}_ses-MRI{visit + 1}"
        tree.keep(
            tree.nifti(f"{base}_T1w.nii.gz"),
            subject_id=f"NKI-RS2:{subject}",
            person_id=f"NKI:{subject}",
            age_at_scan=None,
            sex=None,
        )
    if traps:
        subject = "A77777777"
        people.append([subject])
        base = f"sub-{subject}/ses-MRI1/anat/sub-{subject}_ses-MRI1_space-MNI152NLin2009cAsym"
        tree.drop(tree.nifti(f"{base}_desc-brain_mask.nii.gz"), "no image pattern")
        tree.keep(
            tree.nifti(f"{base}_desc-preproc_T1w.nii.gz"),
            subject_id=f"NKI-RS2:{subject}",
            entry_stripped=False,
            entry_bias_corrected=True,
            entry_space="mni",
            mask_path=f"{base}_desc-brain_mask.nii.gz",
        )
    tree.text("participants.tsv", people, "\t")


def hbn(tree: Tree, volumes: int, subjects: int, traps: bool) -> None:
    """A BIDS folder a site with its own participants.tsv, that of every second site separated by commas."""
    sites = {"RU": "TrioTim", "CBIC": "Prisma", "CUNY": "Prisma", "SI": "Avanto"}
    people: dict[str, list[list]] = {
        s: [["participant_id", "Release_Number", "Sex", "Age", "EHQ_Total"]] for s in sites
    }
    for i, _ in visits(volumes, subjects):
        subject, site, code, ehq = f"NDARAA{i:04d}XY", list(sites)[i % 4], i % 2, (77.8, -60.0, 10.0)[i % 3]
        people[site].append([f"sub-{subject}", 1, code, 5.25 + i % 16, ehq])
        base = f"Site-{site}/sub-{subject}/anat/sub-{subject}"
        tree.keep(
            tree.nifti(f"{base}_acq-HCP_T1w.nii.gz"),
            subject_id=f"HBN:{subject}",
            sex="MF"[code],
            age_at_scan=5.25 + i % 16,
            handedness="RLA"[i % 3],
            site=site,
            diagnosis="Pediatric-Mixed",
            field_strength=1.5 if site == "SI" else 3.0,
            scanner_model=sites[site],
        )
    if traps:
        base = "Site-CBIC/sub-NDARZZ999QQQ/anat/sub-NDARZZ999QQQ"
        people["CBIC"].append(["sub-NDARZZ999QQQ", 1, "", "", "n/a"])
        kept = tree.nifti(f"{base}_acq-VNav_T1w.nii.gz")
        tree.keep(kept, subject_id="HBN:NDARZZ999QQQ", sex=None, handedness=None)
        tree.drop(tree.nifti(f"{base}_acq-VNavNorm_T1w.nii.gz"), "repeat")
        tree.drop(tree.nifti(f"{base}_acq-HCP_T2w.nii.gz"), "T1 only")
        tree.drop(tree.nifti("Site-CBIC/sub-NDARZZ999QQQ/func/sub-NDARZZ999QQQ_bold.nii.gz"), "not anatomical")
    for number, (site, rows) in enumerate(people.items()):
        tree.text(f"Site-{site}/participants.tsv", rows, ",\t"[number % 2])


def abide_1(tree: Tree, volumes: int, subjects: int, traps: bool) -> None:
    """BIDS by site; ids without leading zeros in the table."""
    sites = {"CMU_a": "CMU", "Pitt": "PITT", "NYU": "NYU", "Stanford": "STANFORD"}
    rows: list[list] = [
        ["SITE_ID", "SUB_ID", "FILE_ID", "DX_GROUP", "DSM_IV_TR", "AGE_AT_SCAN", "SEX", "HANDEDNESS_CATEGORY"]
    ]
    for i, visit in visits(volumes, subjects):
        number, site, dx, code = 50002 + i, list(sites)[i % 4], 1 + i % 2, 1 + (i % 5 == 0)
        if visit == 0:
            rows.append([sites[site], number, "no_filename", dx, 2 - dx, 8.5 + i % 30, code, ("R", "L->R")[i % 9 == 0]])
        base = f"RawDataBIDS/{site}/sub-{number:07d}/ses-{visit + 1}/anat/sub-{number:07d}_ses-{visit + 1}"
        tree.keep(
            tree.nifti(f"{base}_run-1_T1w.nii.gz"),
            subject_id=f"ABIDE-I:{number:07d}",
            person_id=f"ABIDE-I:{number:07d}",
            diagnosis=("ASD", "HC")[dx - 1],
            diagnosis_detail=("Autism", "none")[dx - 1],
            sex="MF"[code - 1],
            age_at_scan=8.5 + i % 30,
            handedness="RA"[i % 9 == 0],
            site=site,
            vendor="GE" if site == "Stanford" else "Siemens",
            entry_defaced=True,
        )
    if traps:
        rows.append(["KKI", 50810, "no_filename", 1, 0, -9999, 1, -9999])
        base = "RawDataBIDS/KKI/sub-0050810/anat/sub-0050810"
        kept = tree.nifti(f"{base}_run-1_T1w.nii.gz")
        tree.keep(kept, subject_id="ABIDE-I:0050810", age_at_scan=None, handedness=None, vendor="Philips")
        tree.drop(tree.nifti(f"{base}_run-2_T1w.nii.gz"), "repeat")
        tree.drop(tree.nifti("0051216/session_1/anat_hires_1/mprage.nii.gz"), "UCLA")
    tree.text("Phenotypic_V1_0b_preprocessed1.csv", rows)


def abide_2(tree: Tree, volumes: int, subjects: int, traps: bool) -> None:
    """BIDS by site; table in Latin-1 with a blank behind a name, handedness as numbers."""
    sites = {"BNI_1": "Philips", "GU_1": "Siemens", "EMC_1": "GE"}
    rows: list[list] = [
        ["SITE_ID", "SUB_ID", "DX_GROUP", "PDD_DSM_IV_TR", "AGE_AT_SCAN ", "SEX", "HANDEDNESS_CATEGORY", "NOTE"]
    ]
    for i, visit in visits(volumes, subjects):
        number, site, dx, code = 28675 + i, list(sites)[i % 3], 1 + i % 2, 1 + (i % 4 == 0)
        number += 1000 if number > 29350 else 0  # room for the ids of persons who were in ABIDE I
        if visit == 0:
            rows.append([f"ABIDEII-{site}", number, dx, 2 - dx, 9.75 + i % 40, code, 1 + i % 3, "Zürich"])
        base = f"ABIDEII-{site}/sub-{number}/ses-{visit + 1}/anat/sub-{number}_ses-{visit + 1}"
        tree.keep(
            tree.nifti(f"{base}_run-1_T1w.nii.gz"),
            subject_id=f"ABIDE-II:{number}",
            person_id=f"ABIDE-II:{number}",
            diagnosis=("ASD", "HC")[dx - 1],
            sex="MF"[code - 1],
            age_at_scan=9.75 + i % 40,
            handedness="RLA"[i % 3],
            vendor=sites[site],
        )
    if traps:
        rows.append(["ABIDEII-KKI_1", 29355, 1, "", 12.5, 2, "", ""])
        base = "ABIDEII-KKI_1/sub-29355/ses-1/anat/sub-29355_ses-1"
        kept = tree.nifti(f"{base}_acq-RC8Chan_run-1_T1w.nii.gz")
        tree.keep(kept, subject_id="ABIDE-II:29355", person_id="ABIDE-I:0050810", handedness=None)
        tree.drop(tree.nifti(f"{base}_acq-RC8Chan_run-2_T1w.nii.gz"), "repeat")
        tree.drop(tree.nifti(f"{base}_FLAIR.nii.gz"), "T1 only")
        again = "ABIDEII-UCLA_Long/sub-51315/ses-2/anat/sub-51315_ses-2_run-1_T1w.nii.gz"
        tree.keep(
            tree.nifti(again), subject_id="ABIDE-II:51315", person_id="ABIDE-I:0051315", age_at_scan=15.25, sex="M"
        )
        columns = ["SITE_ID", "SUB_ID", "SESSION", "DX_GROUP", "AGE_AT_SCAN", "SEX", "HANDEDNESS_CATEGORY"]
        long = [columns, ["ABIDEII-UCLA_Long", 51315, "Baseline", 1, 12.0, 1, 1]]
        long.append(["ABIDEII-UCLA_Long", 51315, "Followup_1", 1, 15.25, 1, 1])
        tree.text("ABIDEII_Long_Composite_Phenotypic.csv", long, encoding="latin-1")
    tree.text("ABIDEII_Composite_Phenotypic.csv", rows, encoding="latin-1")


def fcon1000(tree: Tree, volumes: int, subjects: int, traps: bool) -> None:
    """A folder a site; subject numbers start anew at each, as do columns' names."""
    sites = ("Beijing_Zang", "AnnArbor_a", "NewYork_a")
    people: dict[str, list[list]] = {
        "Beijing_Zang": [["participant_id", "age", "sex", "handed"]],
        "AnnArbor_a": [["Subject", "age", "sex", "handedness"]],
        "NewYork_a": [["participant_id", "age", "sex"]],
    }
    for i, _ in visits(volumes, subjects):
        site, number = sites[i % 3], 101 + i // 3
        row = [f"sub{number:05d}" if i % 2 else number, 18.5 + i % 40, "mF"[i % 2], "RB"[i % 5 == 0]]
        people[site].append(row[: len(people[site][0])])
        tree.keep(
            tree.nifti(f"{site}/sub{number:05d}/anat/mprage_anonymized.nii.gz"),
            subject_id=f"FCON1000:{site}:{number:05d}",
            sex="MF"[i % 2],
            age_at_scan=18.5 + i % 40,
            handedness=None if site == "NewYork_a" else "RA"[i % 5 == 0],
            entry_stripped=False,
            entry_defaced=True,
        )
    if traps:
        people["AnnArbor_a"].append(["sub90001", 9999, "f", "U"])
        head = tree.nifti("AnnArbor_a/sub90001/anat/mprage_anonymized.nii.gz")
        tree.keep(head, subject_id="FCON1000:AnnArbor_a:90001", age_at_scan=None, handedness=None, sex="F")
        tree.drop(tree.nifti("AnnArbor_a/sub90001/anat/mprage_skullstripped.nii.gz"), "repeat")
        people["NewYork_a"].append(["sub90001", 520, "f"])  # same number, another person; an age beyond life
        brain = tree.nifti("NewYork_a/sub90001/anat/mprage_skullstripped.nii.gz")
        tree.keep(brain, subject_id="FCON1000:NewYork_a:90001", age_at_scan=None, entry_stripped=True)
        tree.drop(tree.nifti("NewYork_a_ADHD/sub90002/anat/mprage_anonymized.nii.gz"), "patients")
        _fcon1000_without_headers(tree)
    for site, rows in people.items():
        tree.text(f"{site}/participants.tsv", rows, "\t")


def _fcon1000_without_headers(tree: Tree) -> None:
    """NITRC's tables: a running number between id and age at one site, another order and no handedness at the other."""
    oulu = [["sub70001", 1, 21, "m", "R"], ["sub70002", 2, 34, "f", "L"], ["sub70003", 3, 22, "M", ""]]
    leiden = [["f", 23.5, "sub70001"], ["m", 9999, "sub70002"]]
    tree.text("Oulu/Oulu_demographics.txt", oulu, "\t")
    tree.text("Leiden_2180/Leiden_2180_demographics.txt", leiden, " ")
    truth = {f"Oulu:{row[0][3:]}": (row[2], row[3], row[4]) for row in oulu}
    truth |= {f"Leiden_2180:{row[2][3:]}": (row[1], row[0], "") for row in leiden}
    for subject, (age, sex, hand) in truth.items():
        path = "{}/sub{}/anat/mprage_anonymized.nii.gz".format(*subject.split(":"))
        tree.keep(tree.nifti(path), subject_id=f"FCON1000:{subject}", sex=sex.upper(), handedness=hand or None)
        tree.kept[-1]["age_at_scan"] = None if age == 9999 else float(age)


def adhd_200(tree: Tree, volumes: int, subjects: int, traps: bool) -> None:
    """BIDS by site; Gender 0 is female; handedness as code or as fraction."""
    sites = {
        "NYU": (5, "Allegra", 3.0),
        "KKI": (3, None, None),
        "NeuroIMAGE": (4, "Avanto", 1.5),
        "WashU": (8, "TrioTim", 3.0),
    }
    rows: list[list] = [["ScanDir ID", "Site", "Gender", "Age", "Handedness", "DX", "Med Status"]]
    for i, _ in visits(volumes, subjects):
        number, site, dx = 10001 + i, list(sites)[i % 4], i % 4
        rows.append([number, sites[site][0], i % 2, 7.5 + i % 12, ("1", "0.77", "-0.5", "L", "2")[i % 5], dx, "N/A"])
        path = f"RawDataBIDS/{site}/sub-{number:07d}/ses-1/anat/sub-{number:07d}_ses-1_run-1_T1w.nii.gz"
        tree.keep(
            tree.nifti(path),
            subject_id=f"ADHD-200:{number:07d}",
            person_id=f"ADHD-200:{number:07d}",
            sex="FM"[i % 2],
            age_at_scan=7.5 + i % 12,
            handedness="RRLLA"[i % 5],
            diagnosis="ADHD" if dx else "HC",
            site=site,
            field_strength=sites[site][2],
        )
    if traps:
        # This id is another person's in CoRR. The label was withheld at first and came in the test set's own table.
        rows.append([25000, 7, -999, "N/A", "-999", "pending", "-999"])
        path = "RawDataBIDS/Pittsburgh/sub-0025000/ses-1/anat/sub-0025000_ses-1_run-1_T1w.nii.gz"
        tree.keep(tree.nifti(path), subject_id="ADHD-200:0025000", sex=None, age_at_scan=None, diagnosis="HC")
        tree.drop(tree.nifti(path.replace("run-1", "run-2")), "repeat")
        tree.text("allSubs_testSet_phenotypic_dx.csv", [["ID", "DX"], [25000, 0]])
        stem = "fmriprep/sub-0030001/ses-1/anat/sub-0030001_ses-1_run-1_space-MNI152NLin2009cAsym"
        tree.drop(tree.nifti(f"{stem}_desc-brain_mask.nii.gz"), "no image pattern")
        tree.keep(
            tree.nifti(f"{stem}_desc-preproc_T1w.nii.gz"),
            subject_id="ADHD-200:0030001",
            entry_stripped=False,
            entry_bias_corrected=True,
            mask_path=f"{stem}_desc-brain_mask.nii.gz",
        )
    tree.text("adhd200_preprocessed_phenotypics.tsv", rows, "\t")


def corr(tree: Tree, volumes: int, subjects: int, traps: bool) -> None:
    """BIDS by site; one table with carriage returns alone, in which 1 is female."""
    sites = ("BMB_1", "NYU_2", "HNU_1", "UM")
    rows: list[list] = [
        ["SITE", "SUBID", "SESSION", "AGE_AT_SCAN_1", "SEX", "HANDEDNESS", "RETEST_DURATION", "RETEST_UNITS"]
    ]
    for i, _ in visits(volumes, subjects):
        number, site, code = 25000 + i, sites[i % 4], 1 + i % 2
        rows.append([site, number, "Baseline", 18.5 + i % 60, code, "#" if i % 3 else "Right", "#", "#"])
        rows.append([site, number, "Retest_1", "#", "#", "#", 30, "d"])
        path = f"RawDataBIDS/{site}/sub-{number:07d}/ses-1/anat/sub-{number:07d}_ses-1_run-1_T1w.nii.gz"
        tree.keep(
            tree.nifti(path),
            subject_id=f"CoRR:{number:07d}",
            person_id=f"CoRR:{number:07d}",
            sex="FM"[code - 1],
            age_at_scan=18.5 + i % 60,
            handedness=None if i % 3 else "R",
            vendor="GE" if site == "HNU_1" else "Siemens",
        )
    if traps:
        rows.append(["UM", 29999, "NoPhenotypicData", "#", "#", "#", "#", "#"])
        rows.append(["NYU_2", 25000, "retest_2", "#", "#", "#", 60, "d"])
        base = "RawDataBIDS/BMB_1/sub-0025000/ses-{0}/anat/sub-0025000_ses-{0}_run-{1}_T1w.nii.gz"
        tree.drop(tree.nifti(base.format(2, 1)), "retest")
        twice = [base.replace("0025000", f"002700{i}").format(1, 1) for i in (1, 2)]  # one image under two persons' ids
        for path in twice:
            tree.drop(tree.nifti(path, content="twice"), f"another subject's image: {twice[0]} = {twice[1]}")
        tree.drop(tree.nifti(base.format(1, 2)), "repeat")
        held_out = "RawDataBIDS/NKI_1/sub-0021002/ses-1/anat/sub-0021002_ses-1_run-1_T1w.nii.gz"
        tree.drop(tree.nifti(held_out), "NKI-RS")
        parts = "0027001/session_1/anat_1/anat{}.nii.gz"
        tree.keep(tree.nifti(parts.format("_uni")), subject_id="CoRR:0027001")
        tree.drop(tree.nifti(parts.format("_inv1")), "MP2RAGE")
    tree.text("CoRR_AggregatedPhenotypicData.csv", rows, newline="\r")


def bgsp(tree: Tree, volumes: int, subjects: int, traps: bool) -> None:
    """Archives of Dataverse, unpacked; second sessions in a table of their own."""
    columns = ["Subject_ID", "Sex", "Age_Bin", "Hand", "Educ"]
    tables: dict[int, list[list]] = {0: [columns], 1: [columns]}
    for i, visit in visits(volumes, subjects):
        name, age, hand = f"Sub{i + 1:04d}_Ses{visit + 1}", 19 + 2 * (i % 8), ("RHT", "LFT", "AMB")[i % 3]
        tables[visit].append([name, "MF"[i % 2], age, hand, 14 + i % 4])
        tree.keep(
            tree.nifti(f"{name}/{name}_Scan01.nii.gz"),
            subject_id=f"BGSP:{i + 1:04d}",
            session_id=str(visit + 1),
            age_at_scan=float(age),
            age_is_binned=True,
            age_source="bin",
            sex="MF"[i % 2],
            handedness="RLA"[i % 3],
            education_years=14.0 + i % 4,
        )
    if traps:
        tree.drop(tree.nifti("Sub0001_Ses1/Sub0001_Ses1_Scan02.nii.gz", (72, 72, 47, 124), 3.0), "4D")
    tree.text("GSP_list_140630.csv", tables[0])
    tree.text("GSP_retest_140630.csv", tables[1])
