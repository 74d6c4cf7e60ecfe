"""Tables without a header: columns told by what they hold, or by a first line that names them, or not at all."""

import pytest

from braing3n.cohorts.headerless import read_headerless
from braing3n.errors import BrainG3NError


def read(folder, text):
    path = folder / "Site_demographics.txt"
    path.write_bytes(text.encode())
    return read_headerless(path, "utf-8")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sub00440\t21\tm\tr\nsub00441\t34\tf\tl\n", [["sub00440", "21", "m", "r"], ["sub00441", "34", "f", "l"]]),
        (
            "sub-1 1 23.5 M\nsub-2 1 40 F\nsub-3 1 24 F\n",
            [["sub-1", "23.5", "M"], ["sub-2", "40", "F"], ["sub-3", "24", "F"]],
        ),
        (
            "f 21 sub01 5\rm 25 sub02 6\rm 22 sub03 7\r",
            [["sub01", "21", "f"], ["sub02", "25", "m"], ["sub03", "22", "m"]],
        ),
        ("sub1\t25\tm\t\nsub2\t26.5\tf\tR", [["sub1", "25", "m", ""], ["sub2", "26.5", "f", "R"]]),
        ("sub1 -1 m\nsub2 9999 f\nsub3 30 f", [["sub1", "-1", "m"], ["sub2", "9999", "f"], ["sub3", "30", "f"]]),
        ("id iq age sex\nsub1 90 20 m\nsub2 99 30 f", [["sub1", "20", "m"], ["sub2", "30", "f"]]),
    ],
)
def test_columns_are_told_apart(tmp_path, text, expected):
    rows = read(tmp_path, text)
    assert list(rows.columns) == ["subject", "age", "sex", "handedness"][: len(expected[0])]
    assert rows.to_numpy().tolist() == expected


@pytest.mark.parametrize(
    ("text", "role"),
    [
        ("sub1 20 30 m\nsub2 25 35 f", "age"),  # two columns could be ages
        ("sub1 1 m\nsub2 2 f", "age"),
        ("sub1 20 x\nsub2 25 y", "sex"),
        ("one 20 m\ntwo 25 f", "subject"),
        ("", "subject"),
    ],
)
def test_what_cannot_be_told_is_an_error_with_a_remedy(tmp_path, text, role):
    with pytest.raises(BrainG3NError, match=rf"Site_demographics.txt.*which column is the {role}.*names the columns"):
        read(tmp_path, text)
