"""curate/curation.py: a recipe carried out, once and again."""

import pytest

from curating import Here, digests, write_small_recipe
from diptych.curate.curation import curate
from diptych.curate.recipe import read_curate_recipe
from diptych.errors import ConfigError
from diptych.files import folder_lock


def test_a_recipe_becomes_shards_with_ledger_card_and_a_copy_of_itself(tmp_path):
    path = write_small_recipe(tmp_path)
    recipe, said = read_curate_recipe(path), []
    done = curate(recipe, tmp_path / "out", Here(), on_progress=lambda *one: said.append(one))
    assert (done.samples, done.shards, done.card) == (18, tmp_path / "out/shards", tmp_path / "out/card.md")
    assert done.card.is_file()
    assert done.stages[0].read == 24
    assert done.stages[-1].kept == 18
    assert read_curate_recipe(tmp_path / "out/recipe.toml") == recipe
    assert ("shards", 4, 4) in said
    before = digests(tmp_path / "out")
    said.clear()
    assert curate(recipe, tmp_path / "out", Here(), on_progress=lambda *one: said.append(one)) == done
    assert said == []  # nothing was left to do
    assert digests(tmp_path / "out") == before


def test_a_recipe_with_other_stages_leaves_no_trace_of_those_before(tmp_path):
    """Stages have other numbers then; what the earlier ones left must neither be counted nor be in the way."""
    path = write_small_recipe(tmp_path)
    curate(read_curate_recipe(path), tmp_path / "out", Here())
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("[balance]\nt = 8\n", ""), encoding="utf-8")
    done = curate(read_curate_recipe(path), tmp_path / "out", Here())
    assert "balance" not in [stage.name for stage in done.stages]
    assert done.samples == 23
    fresh = curate(read_curate_recipe(path), tmp_path / "fresh", Here())
    assert fresh.stages == done.stages
    assert digests(tmp_path / "out") == digests(tmp_path / "fresh")


def test_two_processes_do_not_work_in_one_folder(tmp_path):
    path = write_small_recipe(tmp_path, count=6)
    with folder_lock(tmp_path / "out"), pytest.raises(ConfigError, match="another process"):
        curate(read_curate_recipe(path), tmp_path / "out", Here())
