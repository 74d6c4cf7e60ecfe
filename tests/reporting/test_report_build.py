"""The page: its numbers are the tables', what failed is named, images decode, nothing is fetched, faults stay local."""

from __future__ import annotations

import base64
import datetime
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from braing3n.config.training import ReportSettings
from braing3n.files import read_json
from braing3n.reporting.build import build
from braing3n.reporting.drawing import TOPICS, draw, manifest_of
from braing3n.reporting.run import Run

NOW = datetime.datetime(2026, 1, 2, 3, 4, tzinfo=datetime.UTC)


class Page(HTMLParser):
    """Text by section, table rows, and everything that a browser would load."""

    def __init__(self, html: str):
        super().__init__()
        self.section, self.text, self.rows, self.loads, self.anchors, self.ids = "top", {}, [], [], [], []
        self._skip = self._in_cell = False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag == "section":
            self.section = attrs["id"]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self._in_cell = True
        if "id" in attrs:
            self.ids.append(attrs["id"])
        for name in ("src", "href", "xlink:href", "data", "action", "srcset", "poster"):
            if name in attrs and tag != "a":
                self.loads.append(attrs[name])
        if tag == "a":
            self.anchors.append(attrs["href"])
        self._skip = tag in ("style", "script")
        assert tag != "script", "the page needs no JavaScript"

    def handle_endtag(self, tag):
        self._in_cell &= tag not in ("td", "th")

    def handle_data(self, data):
        if self._skip:
            self.loads += re.findall(r"url\(([^)]*)\)|@import\s+(\S+)", data)
            return
        self.text[self.section] = self.text.get(self.section, "") + data
        if self._in_cell:
            self.rows[-1][-1] += data


def make(results: Path, out: Path, topics=TOPICS, **options) -> Page:
    run = Run(results, ReportSettings(mosaic_columns=3), figures=out.parent / "figures", **options)
    draw(run, topics)
    build(run, out, NOW)
    return Page(out.read_text())


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("report")


@pytest.fixture(scope="module")
def page(whole_results, folder) -> Page:
    config = {
        "preprocess": {"qc": {"atlas_correlation": 0.5}},
        "mae": {"train": {"seed": 77}},
        "phantom": {"root": "x"},
    }
    return make(whole_results, folder / "report.html", config=config, phantom=("IXI",))


def test_nothing_is_loaded_from_anywhere(page):
    outside = [item for item in page.loads if not str(item).startswith(("#", "data:"))]
    assert outside == []
    assert all(anchor.startswith("#") for anchor in page.anchors)


def test_links_lead_to_sections_and_ids_are_unique(page):
    assert {anchor[1:] for anchor in page.anchors} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))


def test_failed_and_excluded_files_are_named_with_path_and_reason(page, failed, excluded):
    assert [failed["cohort"], failed["path"], failed["volume_id"], failed["stage"], failed["reason"]] in page.rows
    assert [excluded["cohort"], excluded["path"], "–", excluded["stage"], excluded["reason"]] in page.rows


def test_counts_shown_are_those_of_the_ledger(page):
    assert ["IXI", "7", "6", "0", "1", "86 %"] in page.rows
    assert ["all", "12", "10", "1", "1", "83 %"] in page.rows
    assert "10 of 12 files found became stored volumes; 1 were excluded, 1 failed" in page.text["summary"]


def test_corpus_stands_beside_the_papers_table_3(page):
    assert ["ADNI", "4", "10,910", "4", "2,592", "T1", "T1"] in page.rows
    assert ["IXI", "6", "1,159", "3", "582", "T1 T2", "T1 T2"] in page.rows


def test_probe_scores_shown_are_those_of_the_table_and_missing_ones_are_dashes(page):
    assert ["sex", "7", "10", "40 %", "0.8750.81 to 0.94", "0.6250.56 to 0.69"] in page.rows
    assert ["age", "7", "10", "–", "1.000.50 to 2.00", "1.000.50 to 2.00"] in page.rows
    assert ["hc-vs-pd", "3", "4", "too few (1)", "–", "–"] in page.rows
    assert "Not probed, no features: mae-brain" in page.text["probes"]
    assert "2 tasks, n = 7 persons a task" in page.text["probes"]
    text = page.text["probes"]
    recommended, published = (text.index(f"AUC, protocol '{name}'") for name in ("recommended", "published"))
    assert recommended < published


def test_probe_statement_counts_the_intervals_above_chance(page):
    text = " ".join(page.text["summary"].split())
    assert "in 1 of 1 classification the interval of the AUC lies above 0.500; highest sex, 0.88 [0.81, 0.94]" in text
    assert "1 had too few persons" in text


def test_reconstructions_and_distances_stand_beside_what_they_have_to_beat(page):
    assert ["brain", "pooled", "tokenizer", "21.5 [20.5, 22.5]", "3", "4"] in page.rows
    assert ["brain", "pooled", "mean-volume", "18.5 [17.5, 19.5]", "3", "4"] in page.rows
    assert ["mae", "generated vs real", "80", "0.0800", "4, 6", "3, 5 of 96"] in page.rows
    assert "Not computed, no weights: inception" in page.text["distances"]
    assert "In 3 of 3 pairs there are too few volumes" in " ".join(page.text["distances"].split())


def test_forecast_and_memorization_statements_are_those_of_their_tables(page):
    text = " ".join(page.text["summary"].split())
    assert "nearer to the real follow-up than the unchanged baseline: voxel L1 0.2500 against 0.5000" in text
    assert "1 of 2 generated volumes lie nearer to a training scan than 95 % of training scans" in text
    assert ["real follow-up", "voxel L1, copied baseline", "test baselines", "0.500", "1"] in page.rows


def test_arms_say_what_they_ask_for(page):
    assert ["age_70", "T1, age 70", "2", "109", "2", "euler, 10 steps"] in page.rows
    assert ["null_T1", "T1, no other condition", "2", "109", "2", "euler, 10 steps"] in page.rows
    assert "difference from age_30: blue to red over ±0.10 standard deviations" in page.text["generated"]


def test_checks_say_what_passed_and_what_did_not(page):
    text = " ".join(page.text["summary"].split())
    assert "Masked autoencoder: validation error below that of the mean volume: 0.250 against 0.875 (3 volumes)" in text
    assert "Longitudinal DiT: validation error below that of the mean volume: 0.250 against 0.125 (3 volumes)" in text
    assert "3 of 4" in page.text["top"]


def test_simulated_cohorts_are_announced_before_any_number(page):
    text = page.text["top"]
    assert "IXI: simulated" in " ".join(text.split())
    assert text.index("simulated") < text.index("persons")


def test_cost_is_that_of_the_benchmarks_and_cards(page):
    assert ["train_mae", "1", "10 min 0 s", "10 min 0 s", "15 min 0 s", "512"] in page.rows
    assert ["all", "3", "11 min 30 s", "10 min 0 s", "17 min 15 s", "512"] in page.rows
    assert "Trainings used 2 GPU-hours" in page.text["cost"]
    assert ["mae.train.seed", "77"] in page.rows


def test_images_decode_and_every_figure_names_its_source(page, folder):
    pictures = [item for item in page.loads if item.startswith("data:image/png")]
    assert len(pictures) >= 6  # mosaics, arms, forecast, reconstruction, neighbours; charts are inline SVG
    for picture in pictures:
        Image.open(io.BytesIO(base64.b64decode(picture.split(",")[1]))).verify()
    for topic in TOPICS:
        for figure in read_json(folder / "figures" / topic / "figures.json")["figures"]:
            assert figure["sources"]
            assert figure["caption"]
            assert (folder / "figures" / topic / figure["files"][0]).suffix == ".png"


def test_mosaic_shows_right_anterior_superior_at_the_upper_left(page, folder):
    image = np.asarray(Image.open(folder / "figures/mosaics/ADNI.png").convert("L"), dtype=float)
    column = image[:, : image.shape[1] // 3]
    occupied = np.flatnonzero((column[:, column.shape[1] // 2 :] > 60).sum(axis=1) > 20)
    pictures = np.split(occupied, np.flatnonzero(np.diff(occupied) > 5) + 1)
    pictures = [rows for rows in pictures if len(rows) > 40]
    assert len(pictures) == 3
    for rows in pictures:
        picture = column[rows[0] : rows[-1]]
        columns = np.flatnonzero((picture > 60).sum(axis=0) > 20)
        picture = picture[:, columns[0] : columns[-1]]
        h, w = picture.shape
        upper_left = picture[h // 8 : h * 3 // 8, w // 8 : w * 3 // 8].mean()
        others = (
            picture[h * 5 // 8 : h * 7 // 8, w // 8 : w * 7 // 8],
            picture[h // 8 : h * 3 // 8, w * 5 // 8 : w * 7 // 8],
        )
        assert all(upper_left > 1.2 * other.mean() for other in others)


@pytest.mark.parametrize(
    ("broken", "section"),
    [
        ("tables/probes.parquet", "probes"),
        ("metadata/ledger.parquet", "intake"),
        ("models/mae/history.parquet", "training"),
        ("volumes/IXI/0000.npy", "mosaics"),
        ("generated/age_70.npy", "generated"),
        ("figures/reconstruction/T1.npz", "reconstructions"),
        ("forecast/forecasts.parquet", "forecast"),
    ],
)
def test_a_broken_input_costs_its_own_part_only(results, tmp_path, page, broken, section):
    (results / broken).write_bytes(b"not what it should be")
    damaged = make(results, tmp_path / "report.html", [section])
    assert "Problem." in damaged.text[section]
    assert broken in damaged.text[section]
    for name in page.text:
        if name not in (section, "summary", "top"):
            assert "Problem." not in damaged.text[name]


def test_an_empty_results_folder_gives_a_page_that_says_what_is_absent(tmp_path):
    (tmp_path / "results").mkdir()
    page = make(tmp_path / "results", tmp_path / "report.html")
    for section in ("intake", "people", "training", "probes", "cost"):
        assert "Absent." in page.text[section]
    assert "metadata/ledger.parquet: has not been written by this run" in page.text["intake"]


def test_the_same_results_give_the_same_bytes(whole_results, tmp_path):
    topics = ["quality", "probes"]
    first, second = (tmp_path / name / "report.html" for name in ("first", "second"))
    for out in (first, second):
        make(whole_results, out, topics)
    assert first.read_bytes() == second.read_bytes()


def test_figures_are_replaced_not_piled_up(results, tmp_path):
    run = Run(results, figures=tmp_path / "figures")
    draw(run, ["mosaics"])
    volumes = run.volumes
    volumes[volumes["cohort"] == "IXI"].to_parquet(results / "metadata/volumes.parquet")
    draw(Run(results, figures=tmp_path / "figures"), ["mosaics"])
    assert [f["files"] for f in manifest_of(run, "mosaics")["figures"]] == [["IXI.png"]]
    assert sorted(p.name for p in (tmp_path / "figures/mosaics").iterdir()) == ["IXI.png", "figures.json"]
