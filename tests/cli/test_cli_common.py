"""Settings from the command line, and errors as one line."""

import subprocess
import sys

import pytest
import typer

from braing3n.cli.common import command, parse_settings
from braing3n.config.data import N4Settings
from braing3n.errors import BrainG3NError, ResumeLater


def test_settings_as_json_text():
    assert parse_settings(N4Settings, '{"shrink": 2}').shrink == 2


def test_settings_as_section_of_merged_files(tmp_path):
    (tmp_path / "a.yaml").write_text("preprocess: {n4: {shrink: 2, version: 5}}")
    (tmp_path / "b.yaml").write_text("preprocess: {n4: {shrink: 3}}")
    settings = parse_settings(N4Settings, f"{tmp_path / 'a.yaml'}+{tmp_path / 'b.yaml'}#preprocess.n4")
    assert (settings.shrink, settings.version) == (3, 5)


def test_unknown_section_is_named(tmp_path):
    (tmp_path / "a.yaml").write_text("preprocess: {}")
    with pytest.raises(BrainG3NError, match=r"a\.yaml: has no section 'preprocess\.n4'"):
        parse_settings(N4Settings, f"{tmp_path / 'a.yaml'}#preprocess.n4")


def test_a_training_that_is_to_be_resumed_ends_with_status_75(capsys):
    @command
    def stops():
        raise ResumeLater("mae: stopped after step 3 of 9")

    with pytest.raises(typer.Exit) as caught:
        stops()
    assert caught.value.exit_code == 75
    assert capsys.readouterr().err.strip() == "mae: stopped after step 3 of 9"


def test_errors_are_one_line_without_a_traceback(capsys):
    @command
    def fails():
        raise BrainG3NError("is empty", file="scan.nii.gz", remedy="download it again")

    with pytest.raises(typer.Exit) as caught:
        fails()
    assert caught.value.exit_code == 1
    assert capsys.readouterr().err.strip() == "error: scan.nii.gz: is empty; remedy: download it again"


def test_help_lists_every_noun_without_importing_torch():
    script = (
        "import sys, braing3n.cli.main as m; m.app(['--help'], standalone_mode=False); sys.exit('torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    for noun in ("atlas", "index", "shard", "metadata", "mae", "probe", "report", "status"):
        assert noun in result.stdout
