"""Captions of Snakemake's own report cover every topic that is drawn."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import jinja2

from braing3n.reporting.drawing import TOPICS, topic_module

CAPTION = Path(__file__).parents[2] / "workflow/report/figures.rst"


def test_every_topic_has_a_caption_and_a_module():
    text = CAPTION.read_text()
    assert set(re.findall(r'^  "(\w+)":', text, flags=re.M)) == set(TOPICS)
    for topic in TOPICS:
        wildcards = SimpleNamespace(topic=topic)
        assert len(jinja2.Template(text).render(snakemake=SimpleNamespace(wildcards=wildcards)).strip()) > 100
        module = topic_module(topic)
        assert module.TITLE
        assert module.LEAD
