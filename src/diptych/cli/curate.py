"""`diptych curate`: from a crawl, a list of addresses or pairs to shards, with a ledger of every pair."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter
from cyclopts.types import PositiveInt

from diptych.cli.console import complain, error_console, on_screen, print_table, shows_bars

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diptych.curate.ledger import StageCounts

curate = App(name="curate", help="Make training shards of a crawl, of lists of addresses, or of other pairs.")
curate.command("diptych.cli.curate_queries:queries", name="queries")


@curate.default
def run(
    recipe: Path,
    out: Path,
    *,
    set_: Annotated[list[str] | None, Parameter(name="--set", negative=())] = None,
    workers: PositiveInt | None = None,
    runner: Literal["local", "daft"] = "local",
    retry: Annotated[list[str] | None, Parameter(negative=())] = None,
) -> None:
    """Make shards as a recipe says; go on where a run in the same folder was stopped.

    A stage whose options or sources changed is made again, and those after it; the others stay.

    Parameters
    ----------
    recipe
        A TOML file; its relative paths are from its folder.
    out
        A folder for recipe.toml, work/, shards/ and the data card: card.md, card.json, card.html.
    set_
        One option of the recipe, e.g. balance.t=50; relative paths are from here. May be given several times.
    workers
        Processes of one thread each; by default one for each core. The shards do not depend on it.
    runner
        "daft" hands the work to daft, which DAFT_RUNNER=ray spreads over a cluster. The shards do not depend on it.
    retry
        Fetch again what failed for this cause, e.g. dns or "http 503"; "all" for those that may heal. May be given
        several times.
    """
    import contextlib

    from rich.progress import Progress

    from diptych.cluster import DaftRunner
    from diptych.crawl.fetch_causes import MAY_HEAL
    from diptych.curate.curation import curate as carry_out
    from diptych.curate.recipe import read_curate_recipe
    from diptych.curate.runner import LocalRunner
    from diptych.runtime import usable_cores

    plan, count = read_curate_recipe(recipe, set_ or ()), workers or usable_cores()
    causes = [cause for asked in retry or () for cause in (sorted(MAY_HEAL) if asked == "all" else [asked])]
    with contextlib.ExitStack() as stack:
        carrier = DaftRunner(count) if runner == "daft" else stack.enter_context(LocalRunner(count))
        view = Progress(console=error_console(), transient=True, disable=not shows_bars())
        bar = stack.enter_context(on_screen(view))
        task = bar.add_task("")

        def show(stage: str, done: int, total: int) -> None:
            bar.update(task, description=stage, completed=done, total=total)

        done = carry_out(plan, out, carrier, retry=causes, on_progress=show)
    print_ledger(done.stages)
    _write_page(out)
    print(f"{done.samples:,} pairs -> {done.shards}; data card: {done.card}")


@curate.command
def report(out: Path, *, examples: int = 0) -> None:
    """Print the ledger of a curation, also of one that is under way: read = kept + dropped by cause.

    Parameters
    ----------
    out
        Its folder.
    examples
        Rows to show for each cause.
    """
    from diptych.curate.ledger import examples as find_examples
    from diptych.curate.ledger import read_ledger, stage_folders
    from diptych.errors import DataError

    work = out / "work"
    stages = read_ledger(work)
    if not stages:
        raise DataError(f"{work} must hold a stage of a curation that is done, and holds none.")
    print_ledger(stages)
    for folder, stage in zip(stage_folders(work), stages, strict=True):
        for cause in stage.dropped if examples else ():
            for row in find_examples(folder, cause, examples).to_pylist():
                print(f"{stage.name}: {cause}: {row['key']} {row['value'] or ''}")


@curate.command
def remove(
    out: Path,
    keys: list[str] | None = None,
    /,
    *,
    domain: Annotated[list[str] | None, Parameter(negative=())] = None,
    note: str = "",
) -> None:
    """Take pairs out of the shards of a curation, and keep them out of all that is made there again.

    Parameters
    ----------
    out
        The folder of the curation.
    keys
        Keys of the pairs.
    domain
        All pairs whose picture or page is of this domain, or below it. May be given several times.
    note
        Why, for the data card.
    """
    from diptych.curate.card import write_card_again
    from diptych.curate.remove import Removal, remove_samples
    from diptych.files import folder_lock

    with folder_lock(out):
        count = remove_samples(out, Removal(keys=tuple(keys or ()), domains=tuple(domain or ()), note=note))
        if write_card_again(out):
            _write_page(out)
        else:
            (out / "card.html").unlink(missing_ok=True)
    print(f"{count:,} pairs removed from {out / 'shards'}")
    if not count:
        complain("no pair in the shards is meant; it is noted all the same, for what is made later.")


def _write_page(out: Path) -> None:
    from diptych.pages.curation import write_curation_page

    if left_out := write_curation_page(out):
        complain(left_out)


def print_ledger(stages: "Sequence[StageCounts]") -> None:
    """One line a stage, one a cause below it."""
    rows = []
    for stage in stages:
        rows.append((stage.name, f"{stage.read:,}", f"{stage.kept:,}", ""))
        rows += [("", "", "", f"{count:,} {cause}") for cause, count in stage.dropped.items()]
    print_table(rows, header=("stage", "read", "kept", "dropped"), numbers=(1, 2))
