"""A recipe carried out: from its sources to shards, a manifest and a data card."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from diptych.config import to_toml
from diptych.curate.card import write_card
from diptych.curate.ledger import StageCounts, read_ledger
from diptych.curate.pipeline import OnProgress, run_stages, write_shards
from diptych.curate.recipe import CurateRecipe
from diptych.curate.runner import Runner
from diptych.files import folder_lock, remove_leftovers, write_text

WORK = "work"


@dataclass(frozen=True, kw_only=True)
class Curated:
    """What came of it."""

    samples: int  # in the shards
    stages: Sequence[StageCounts]
    shards: Path
    card: Path


def curate(
    recipe: CurateRecipe,
    out: Path,
    runner: Runner,
    *,
    retry: Sequence[str] = (),
    on_progress: OnProgress = lambda *_: None,
) -> Curated:
    """Do what is missing of a curation.

    Args:
        recipe: what is to come of what.
        out: gets `recipe.toml`, `work/`, `shards/` and the data card; what is there of the same recipe is kept.
        runner: who does it: `LocalRunner`, or `cluster.DaftRunner`.
        retry: causes for which pictures could not be fetched, to be tried once more.
        on_progress: called with the name of a stage, tasks done, and tasks in all.

    Raises:
        ConfigError: another process works in `out`, or a source or an option cannot be used.
        DataError: a source cannot be read, or the disk is full; what is done stays.
    """
    with folder_lock(out):
        remove_leftovers(out)
        write_text(out / "recipe.toml", to_toml(recipe))
        left = run_stages(recipe.pipeline(), out / WORK, runner, retry=tuple(retry), on_progress=on_progress)
        if (out / "shards").is_dir():
            remove_leftovers(out / "shards")
        samples = write_shards(left, out, runner, size=recipe.shards.samples, on_progress=on_progress)
        card = write_card(recipe, out)
        return Curated(samples=samples, stages=read_ledger(out / WORK), shards=out / "shards", card=card)
