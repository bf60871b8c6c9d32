"""`diptych audit`: what a model gets wrong, about whom, and what it may have seen."""

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import App
from cyclopts.types import NonNegativeInt, PositiveInt

from diptych.cli.console import complain, one_line
from diptych.cli.options import ModelOptions
from diptych.data.embedded import HELD_OUT, data_path
from diptych.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diptych.audit.whole import Sets
    from diptych.eval.chapter import Audit
    from diptych.eval.comparison import ComparedModels

audit = App(name="audit", help="What a model gets wrong, about whom, and what it may have seen in training.")
for name in (
    "by-group", "calibration", "class-design", "corruptions", "gendered-labels", "overlap", "pointing", "scenes",
    "shortcuts", "surveillance", "tones", "typographic", "wording",
):  # fmt: skip
    function = name.replace("-", "_")
    audit.command(f"diptych.cli.audit_{function}:{function}", name=name)

_FAILED = 3  # exit code where a limit is not kept; 2 is a wrong word, 1 anything else


@audit.default
def whole(
    model: str,
    *,
    data: list[str] | None = None,
    people: list[Path] | None = None,
    grouped: list[Path] | None = None,
    choices: list[Path] | None = None,
    near_misses: Path | None = None,
    names: Path | None = None,
    split: str = "test",
    chapters: list[str] | None = None,
    out: Path | None = None,
    against: str | None = None,
    card: Path | None = None,
    fail_on: list[str] | None = None,
    seed: NonNegativeInt = 0,
    batch_size: PositiveInt = 64,
) -> None:
    """Ask a model all that can be asked, and write one page of it.

    Without any data it is asked with what is drawn: emoji in five skin tones, scenes, words written on pictures,
    corruptions, backgrounds. What else could be asked, and with which data, stands on the page as not measured. Every
    chapter is a command of its own as well, with more options.

    Parameters
    ----------
    model
        A name from `diptych models`, or a bundle's folder.
    data
        A labelled set, in any layout that `diptych evaluate zero-shot` reads; may be given several times. By default
        drawings that are embedded.
    people
        Pictures of people with groups: FairFace, UTKFace, or your own with a table; may be given several times.
    grouped
        A labelled set with groups: Dollar Street, GeoDE, or your own with a table; may be given several times.
    choices
        Pictures with right and wrong captions, such as SugarCrepe and ARO; may be given several times.
    near_misses
        Scenes with captions that nearly fit, captions.csv, see `diptych audit surveillance`.
    names
        Pictures of people, a folder for each name, see there.
    split
        Which split of the sets.
    chapters
        Names of the chapters that shall be asked; may be given several times. By default all.
    out
        A folder for audit.json and the page audit.html.
    against
        Another model, which is asked the same, or the audit.json of one: the two are compared row by row.
    card
        A Markdown file for a model card: numbers, findings, and metadata as Hugging Face reads them.
    fail_on
        A limit, as "class-design: non-human > 5%": CHAPTER, words of the number, a sign and a number; may be given
        several times. Where one is passed the exit code is 3, after everything is written.
    seed
        Of whatever is drawn.
    batch_size
        Pictures, and texts, in one forward pass.
    """
    from diptych.audit.fail_on import reached, read_limit
    from diptych.eval.comparison import compare_results
    from diptych.files import folder_lock

    limits = [read_limit(limit) for limit in fail_on or ()]
    sets = _sets(data or [HELD_OUT], people or (), grouped or (), choices or (), near_misses, names, split)
    other = _kept(against, seed) if against else None
    with folder_lock(out) if out else nullcontext():  # before minutes of work: one that cannot be written is said now
        found = _audited(model, sets, chapters or (), seed, batch_size)
        if against and not other:
            other = _audited(against, sets, chapters or (), seed, batch_size)
        compared = compare_results(found.results, other.results, seed=seed) if other else None
        _say(found)
        if out:
            _write(found, compared, out)
    if card:
        from diptych.files import write_text
        from diptych.pages.audit_card import audit_card

        write_text(card, audit_card(found))
    failed = reached(found, limits)
    for sentence in failed:
        complain(sentence)
    if failed:
        raise SystemExit(_FAILED)


def _sets(
    data: "Sequence[str]",
    people: "Sequence[Path]",
    grouped: "Sequence[Path]",
    choices: "Sequence[Path]",
    near_misses: Path | None,
    names: Path | None,
    split: str,
) -> "Sets":
    from diptych.audit.whole import Sets
    from diptych.sets.choices import read_choices
    from diptych.sets.digest import digest, digest_of_rows
    from diptych.sets.grouped import read_grouped
    from diptych.sets.near_misses import read_near_misses
    from diptych.sets.open import read_labelled

    labelled = [read_labelled(data_path(one), split=split) for one in data]
    with_groups = {one: read_grouped(one, split=split) for one in (*people, *grouped)}
    captioned = [read_choices(one, split=split) for one in choices]
    scenes = read_near_misses(near_misses) if near_misses else None
    known = read_labelled(names, split=split) if names else None
    named = [*zip(map(data_path, data), labelled, strict=True), *with_groups.items()]
    if names and known:
        named.append((names, known))
    digests = {(one.name, one.split): digest(folder, one.split) for folder, one in named}
    for one in captioned:
        digests[one.name, one.split] = digest_of_rows(one, one.right, one.wrong, one.kinds, one.image_of.tolist())
    if scenes:
        told = (scenes.right, scenes.near_miss, scenes.others, scenes.kinds)
        digests[scenes.name, scenes.split] = digest_of_rows(scenes, *told)
    return Sets(
        labelled=labelled,
        people=[with_groups[one] for one in people],
        grouped=[with_groups[one] for one in grouped],
        choices=captioned,
        near_misses=scenes,
        names=known,
        digests=digests,
    )


def _audited(model: str, sets: "Sets", chapters: "Sequence[str]", seed: int, batch_size: int) -> "Audit":
    from diptych.audit.whole import audit_model

    features = ModelOptions(model=model, seed=seed, batch_size=batch_size, truncate=True).features()
    return audit_model(
        features, sets, model=model, chapters=chapters, seed=seed, on_chapter=lambda name: complain(f"{model}: {name}")
    )


def _kept(against: str, seed: int) -> "Audit | None":
    """An audit in a file, of the same draws; None where a model is named."""
    from diptych.eval.result_file import read_audit

    if not against.endswith(".json"):
        return None
    other = read_audit(Path(against))
    if other.conditions.seed != seed:
        raise ConfigError(
            f"{against} must be of the same draws, --seed {seed}. It is of --seed {other.conditions.seed}."
        )
    return other


def _say(found: "Audit") -> None:
    from diptych.pages.audit import not_measured, summary

    print(f"{one_line(found.model.name)}: {len(found.chapters)} chapters, {len(found.results):,} numbers")
    for _, sentence in summary(found):
        print(one_line(f"- {sentence}"))
    for chapter, why in not_measured(found):
        print(one_line(f"not measured: {chapter}: {why}"))


def _write(found: "Audit", compared: "ComparedModels | None", out: Path) -> None:
    from diptych.eval.result_file import write_audit
    from diptych.pages.audit import audit_page
    from diptych.pages.html import write_report

    write_audit(found, out / "audit.json")
    if note := write_report(audit_page(found, compared), out / "audit.html"):
        complain(note)
