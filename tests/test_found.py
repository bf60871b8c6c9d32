"""What a search found, as programs read it: no name of a file can break it."""

import csv
import datetime
import io
import os
import sys
from pathlib import Path

import pytest

from diptych.cli.found import FormOptions, print_found, print_groups
from diptych.errors import ConfigError
from diptych.search.results import Hit, Results

NAMES = (b"/a/with space.jpg", b"/a/new\nline.jpg", b"/a/quo'te\".jpg", b"/a/bad\xff\xfe.jpg", b"/a/-rf.jpg")
FOUND = Results(
    tuple(
        Hit(
            path=Path(os.fsdecode(name)),
            score=0.5 - i / 10,
            date=datetime.datetime(2020 + i % 3, 1, 2) if i < 4 else None,
            camera="=HYPERLINK(1)" if not i else "",
            place=(1.5, -2.5) if i == 1 else None,
            time=61.0 if i == 2 else None,
        )
        for i, name in enumerate(NAMES)
    )
)


def test_null_characters_keep_apart_whatever_bytes_a_name_has(capsysbinary):
    print_found(FOUND, FormOptions(print0=True))
    assert capsysbinary.readouterr().out == b"".join(name + b"\0" for name in NAMES)


def test_paths_are_lines_and_a_name_that_breaks_one_is_told(capsysbinary):
    print_found(FOUND, FormOptions(paths=True))
    out, err = capsysbinary.readouterr()
    assert out == b"".join(name + b"\n" for name in NAMES)
    assert err.startswith(b"diptych: 1 names hold a line break")


def test_on_a_terminal_no_name_steers_it(capsys, monkeypatch):
    found = Results((Hit(path=Path("/a/\x1b[31m\n.jpg"), score=0.5),))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    print_found(found, FormOptions(paths=True))
    print_found(found, FormOptions(csv_=True))
    out = capsys.readouterr().out
    assert out.count("/a/\\x1b[31m\\n.jpg") == 2
    assert "\x1b" not in out


def test_csv_reads_back_and_computes_nothing(capsys):
    print_found(FOUND, FormOptions(csv_=True))
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["path"] for row in rows] == [name.decode("utf-8", "backslashreplace") for name in NAMES]
    assert (rows[0]["score"], rows[0]["date"], rows[0]["camera"]) == (
        "0.500000",
        "2020-01-02 00:00:00",
        "'=HYPERLINK(1)",
    )
    assert (rows[1]["latitude"], rows[1]["longitude"], rows[2]["time"], rows[4]["date"]) == ("1.5", "-2.5", "61.0", "")


def test_groups_stand_apart_in_every_form(capsysbinary):
    groups = [Results(FOUND.rows[:2]), Results(FOUND.rows[2:4])]
    print_groups(groups, FormOptions(print0=True))
    assert capsysbinary.readouterr().out.split(b"\0") == [*NAMES[:2], b"", *NAMES[2:4], b""]
    print_groups(groups, FormOptions(paths=True))
    assert capsysbinary.readouterr().out == b"\n".join([*NAMES[:2], b"", *NAMES[2:4], b""])
    print_groups(groups, FormOptions(csv_=True))
    rows = csv.DictReader(io.StringIO(capsysbinary.readouterr().out.decode()))
    assert [row["group"] for row in rows] == ["1", "1", "2", "2"]


def test_nothing_found_is_nothing_printed_but_for_the_head_of_a_table(capsysbinary):
    for form, expected in (("paths", b""), ("print0", b""), ("json_", b"[]\n"), ("csv_", b"path,")):
        print_found(Results(()), FormOptions(**{form: True}))
        assert capsysbinary.readouterr().out.startswith(expected), form


def test_two_forms_are_refused():
    with pytest.raises(ConfigError, match="Leave one of --json, --print0"):
        FormOptions(json_=True, print0=True).chosen()
