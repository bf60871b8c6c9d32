"""`diptych curate`, `curate report` and `curate remove` as a user calls them."""

import json
import os
import re
import signal
import subprocess
import sys

import pytest

from curating import Here, write_small_recipe
from diptych.cli.main import main
from diptych.curate import runner
from diptych.curate.card import read_card
from diptych.pairs.sources import Source, open_pairs
from processes import started, wait_until


class HereRunner(Here):
    """Stands in for a pool of processes, which takes seconds to start."""

    def __init__(self, workers):
        self.workers = workers

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


@pytest.fixture
def run(capsys, monkeypatch):
    monkeypatch.setattr(runner, "LocalRunner", HereRunner)

    def run_(*words):
        capsys.readouterr()
        code = main([str(word) for word in words])
        return code, *capsys.readouterr()

    return run_


@pytest.fixture
def made(run, tmp_path):
    """A recipe and its folder, carried out."""
    recipe, out = write_small_recipe(tmp_path), tmp_path / "out"
    assert run("curate", recipe, out)[0] == 0
    return recipe, out


def keys_in(out):
    pairs = open_pairs(Source(path=str(out / "shards")))
    return [pairs.key(i) for i in range(len(pairs))]


def test_a_folder_of_pictures_becomes_shards_with_a_ledger_and_a_card(run, tmp_path):
    recipe, out = write_small_recipe(tmp_path), tmp_path / "out"
    code, said, complaints = run("curate", recipe, out)
    assert (code, complaints) == (0, "")
    lines = [line.split() for line in said.splitlines()]
    assert lines[0] == ["stage", "read", "kept", "dropped"]
    assert ["read", "24", "24"] in lines
    assert ["text", "24", "23"] in lines
    assert ["1", "file-names"] in lines
    assert ["5", "balance"] in lines
    assert said.splitlines()[-1] == f"18 pairs -> {out / 'shards'}; data card: {out / 'card.md'}"
    assert {path.name for path in out.iterdir() if not path.name.startswith(".")} == {
        "recipe.toml", "work", "shards", "card.md", "card.json", "card.html",
    }  # fmt: skip
    assert len(keys_in(out)) == 18


def test_a_second_run_says_the_same_and_an_option_changes_what_follows_it(run, made):
    recipe, out = made
    first = run("curate", recipe, out)
    assert run("curate", recipe, out) == first
    code, said, _ = run("curate", recipe, out, "--set", "balance.t=100", "--set", "shards.samples=50")
    assert code == 0
    assert "23 pairs -> " in said
    assert [path.name for path in (out / "shards").glob("*.tar")] == ["shard-00000.tar"]
    assert read_card(out).pairs == 23


def test_retry_with_nothing_that_waits_changes_nothing(run, made):
    recipe, out = made
    before = [(out / name).read_bytes() for name in ("card.json", "shards/manifest.json")]
    assert run("curate", recipe, out, "--retry", "all", "--retry", "http 404")[0] == 0
    assert [(out / name).read_bytes() for name in ("card.json", "shards/manifest.json")] == before


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("balance.tt=5", "balance.tt is not an option. Did you mean balance.t?"),
        ("mach.queries=a", "mach is not an option. Did you mean match?"),
        ("balance.t=0", "balance.t must be at least 1"),
        ("balance.t=many", "balance.t must be a whole number"),
        ("match.queries=nowhere.txt", "nowhere.txt"),
    ],
)
def test_a_bad_recipe_is_one_line_and_exit_code_2(run, tmp_path, option, message):
    recipe = write_small_recipe(tmp_path, count=6)
    code, said, complaint = run("curate", recipe, tmp_path / "out", "--set", option)
    assert (code, said, complaint.count("\n")) == (2, "", 1)
    assert message in complaint


def test_a_recipe_or_source_that_is_not_there_is_named(run, tmp_path):
    code, _, complaint = run("curate", tmp_path / "no.toml", tmp_path / "out")
    assert (code, complaint.count("\n")) == (2, 1)
    assert "no.toml" in complaint
    (tmp_path / "recipe.toml").write_text('[[sources]]\npath = "no-pictures"\n')
    code, _, complaint = run("curate", tmp_path / "recipe.toml", tmp_path / "out")
    assert (code, complaint.count("\n")) == (2, 1)
    assert "no-pictures" in complaint


def test_a_folder_that_cannot_be_written_is_named(run, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, complaint = run("curate", write_small_recipe(tmp_path, count=6), tmp_path / "file" / "out")
    assert (code, complaint.count("\n")) == (2, 1)
    assert str(tmp_path / "file" / "out") in complaint


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_is_read_only_is_named(run, tmp_path):
    (tmp_path / "out").mkdir(mode=0o500)
    code, _, complaint = run("curate", write_small_recipe(tmp_path, count=6), tmp_path / "out")
    assert (code, complaint.count("\n")) == (2, 1)
    assert "could not be written" in complaint


def test_the_report_is_the_ledger_with_examples(run, made):
    recipe, out = made
    code, said, _ = run("curate", "report", out)
    assert code == 0
    assert said.splitlines() == run("curate", recipe, out)[1].splitlines()[:-1]
    code, said, _ = run("curate", "report", out, "--examples", 2)
    shown = [line for line in said.splitlines() if re.match(r"\S+: \S", line)]
    assert [line.split(": ")[:2] for line in shown] == [
        ["text", "file-names"],
        ["balance", "balance"],
        ["balance", "balance"],
    ]
    assert "IMG_0001.jpg" in shown[0]


def test_the_report_tells_of_a_run_that_is_under_way(run, made):
    _, out = made
    (out / "work/05-fetch/sizes.json").unlink()
    code, said, _ = run("curate", "report", out)
    assert code == 0
    assert [line.split()[0] for line in said.splitlines() if line[0] != " "] == [
        "stage", "read", "duplicates-pair", "text", "match", "balance",
    ]  # fmt: skip


def test_a_report_of_a_folder_without_work_is_a_sentence(run, tmp_path):
    code, said, complaint = run("curate", "report", tmp_path)
    assert (code, said, complaint.count("\n")) == (2, "", 1)
    assert "work" in complaint


def test_what_is_removed_is_gone_from_shards_card_and_page(run, made):
    recipe, out = made
    gone = keys_in(out)[:2]
    code, said, complaint = run("curate", "remove", out, *gone, "--note", "asked by their maker")
    assert (code, complaint) == (0, "")
    assert said == f"2 pairs removed from {out / 'shards'}\n"
    assert set(keys_in(out)).isdisjoint(gone)
    card = read_card(out)
    assert (card.pairs, card.removed[0].pairs, card.removed[0].note) == (16, 2, "asked by their maker")
    page = (out / "card.html").read_text(encoding="utf-8")
    assert "asked by their maker" in page
    assert not [key for key in gone if key in page]
    assert run("curate", recipe, out)[0] == 0  # and they stay away
    assert read_card(out) == card


def test_removing_what_is_not_there_is_noted_and_said(run, made):
    _, out = made
    code, said, complaint = run("curate", "remove", out, "--domain", "no.example")
    assert code == 0
    assert said.startswith("0 pairs removed")
    assert "no pair in the shards is meant" in complaint
    assert json.loads((out / "removed.json").read_text())[0]["domains"] == ["no.example"]


def test_removing_needs_something_to_remove_and_shards(run, made, tmp_path):
    _, out = made
    assert "keys or domains" in run("curate", "remove", out)[2]
    code, _, complaint = run("curate", "remove", tmp_path / "pictures", "key")
    assert code == 2
    assert "must hold shards" in complaint


@pytest.mark.skipif(os.name == "nt", reason="SIGINT to another process is POSIX")
def test_ctrl_c_is_one_line_and_a_later_run_goes_on(tmp_path):
    recipe, out = write_small_recipe(tmp_path), tmp_path / "out"
    command = [sys.executable, "-m", "diptych", "curate", recipe, out, "--workers", "1", "--set", "part_rows=1"]
    with started(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        wait_until(lambda: any(out.glob("work/00-read/parts/[0-9]*")), seconds=300)
        process.send_signal(signal.SIGINT)
        said, complaint = process.communicate(timeout=300)
    assert (said, complaint) == ("", "diptych: stopped.\n")
    assert process.returncode == 130
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=600, check=True)
    assert "18 pairs -> " in done.stdout
    assert len(keys_in(out)) == 18
