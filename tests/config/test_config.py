"""The shipped configuration is valid, described, and reports mistakes by key and value."""

from pathlib import Path

import pytest
import yaml

from braing3n.config import load_config, merge, read_yaml
from braing3n.config.describe import describe, json_schema
from braing3n.errors import BrainG3NError

REPOSITORY = Path(__file__).parents[2]
SHIPPED = REPOSITORY / "config" / "config.yaml"
DEMO = REPOSITORY / "config" / "demo.yaml"


def test_shipped_values_are_the_papers():
    config = load_config([SHIPPED])
    assert (config.mae.model.hidden, config.mae.model.depth, config.mae.model.heads) == (1152, 12, 16)
    assert (config.mae.model.decoder_hidden, config.mae.model.decoder_depth) == (1152, 8)
    assert config.mae.model.mask_ratio == 0.70
    assert (config.mae.train.epochs, config.mae.train.batch_size, config.mae.train.learning_rate) == (100, 16, 1e-4)
    assert (config.tokenizer.model.latent, config.tokenizer.train.batch_size) == (32, 12)
    assert (config.tokenizer.train.epochs, config.tokenizer.train.patience) == (80, 40)
    assert (config.dit.model.hidden, config.dit.model.depth, config.dit.model.heads) == (1152, 12, 18)
    assert (config.dit.train.learning_rate, config.dit.train.weight_decay) == (5e-5, 0.01)
    assert (config.dit.train.clip_norm, config.dit.train.ema_decay) == (0.5, 0.9999)
    assert (config.dit.sampler.steps, config.dit.sampler.guidance) == (50, 2.0)
    assert (config.longitudinal.bridge_sigma, config.longitudinal.sampler.steps) == (0.5, 100)
    assert (config.probe.folds, config.probe.seed, config.probe.max_iter) == (5, 2025, 1000)


def test_demo_changes_numbers_only():
    """Counts, widths, places and the CPU backend may differ; no key may appear that config.yaml does not have."""
    shipped, demo = read_yaml(SHIPPED), read_yaml(DEMO)

    def unknown(override, base, path=()):
        for key, value in override.items():
            if path in ((), ("cohorts",)) and key in ("cohorts", "phantom"):
                continue
            if isinstance(value, dict) and isinstance(base.get(key), dict):
                yield from unknown(value, base[key], (*path, key))
            elif key not in base and "train" not in path:
                yield ".".join((*path, key))

    assert list(unknown(demo, shipped)) == []
    load_config([SHIPPED, DEMO])


def test_every_setting_is_described():
    table = describe(read_yaml(SHIPPED))
    undescribed = [line for line in table.splitlines() if line.endswith("|  |") or "|  (" in line]
    assert undescribed == []


def test_readme_holds_the_current_description():
    text = (REPOSITORY / "config" / "README.md").read_text()
    assert describe(read_yaml(SHIPPED)) in text, "run: braing3n config describe, and replace the table"


def test_schema_covers_every_section():
    schema = json_schema()
    assert set(read_yaml(SHIPPED)) <= set(schema["properties"])


def test_merge_is_by_key_and_replaces_lists():
    assert merge({"a": {"b": 1, "c": [1, 2]}}, {"a": {"c": [3]}}) == {"a": {"b": 1, "c": [3]}}


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ({"mae": {"model": {"hidden": 1000}}}, ["mae.model.hidden", "1000"]),
        ({"mae": {"train": {"epochz": 3}}}, ["mae.train.epochz", "Extra inputs"]),
        ({"preprocess": {"mask": {"backend": "bet"}}}, ["preprocess.mask.backend", "hd-bet", "'bet'"]),
        ({"dit": {"never_dropped": ["modulaty"]}}, ["never_dropped", "modulaty"]),
    ],
)
def test_mistakes_name_key_and_value(tmp_path, override, words):
    mine = tmp_path / "mine.yaml"
    mine.write_text(yaml.safe_dump(override))
    with pytest.raises(BrainG3NError) as caught:
        load_config([SHIPPED, mine])
    for word in [*words, "mine.yaml"]:
        assert word in str(caught.value)


def test_file_that_is_not_yaml_is_named(tmp_path):
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [1,")
    with pytest.raises(BrainG3NError, match=r"broken\.yaml: is not valid YAML"):
        load_config([broken])
