"""A curation as a page: its data card, the way from what was read to what is left, pairs with their pictures."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from PIL import Image

from diptych.captions.balance import BalanceCurve
from diptych.curate.card import read_card
from diptych.curate.card_data import Counts, DataCard, SampleOnCard
from diptych.data.images import open_image
from diptych.errors import DiptychError
from diptych.pages.html import write_report
from diptych.pages.page import Bars, CaptionedPicture, Headline, PageSection, PageTable, ReportPage, ShareCurves
from diptych.pairs.shards import ShardSet

PAGE = "card.html"


def write_curation_page(out: Path) -> str:
    """Write the page of a curation beside its data card, from that and the shards.

    Returns:
        As `write_report`.

    Raises:
        DataError: there is no card, or the page cannot be written.
    """
    card = read_card(out)
    return write_report(curation_page(card, sample_pictures(card.kept.samples, out / "shards")), out / PAGE)


def sample_pictures(samples: tuple[SampleOnCard, ...], shards: Path) -> dict[str, Image.Image]:
    """The pictures of the pairs that a card shows, by key; without those that cannot be read."""
    found = {}
    for name in sorted({sample.shard for sample in samples}):
        wanted = {sample.key for sample in samples if sample.shard == name}
        try:
            pairs = ShardSet(shards / name)
            for index in range(len(pairs)):
                if (key := pairs.key(index)) in wanted:
                    found[key] = open_image(pairs[index].picture or b"")
        except DiptychError:  # a page shows what there is
            continue
    return found


def curation_page(card: DataCard, pictures: Mapping[str, Image.Image]) -> ReportPage:
    """Lay out a data card.

    Args:
        card: what it says.
        pictures: of its samples, by key; those that are missing are left out.
    """
    return ReportPage(
        title=card.name or "Pairs of pictures and texts",
        summary=f"{card.pairs:,} pictures with their texts, of {card.read:,} pairs that were read.",
        headline=_headline(card),
        sections=[section for section in _sections(card, pictures) if _has_parts(section)],
        conditions={
            "SHA-256 of manifest.json": card.manifest_sha256,
            "licence of the set": card.licence or "not stated",
            "seed": str(card.seed),
            **{f"version of {name}": version for name, version in card.versions.items()},
        },
    )


def _has_parts(section: PageSection) -> bool:
    return bool(section.tables or section.plots or section.captioned or section.text)


def _headline(card: DataCard) -> list[Headline]:
    tiles = [("pairs", f"{card.pairs:,}", f"in {card.shards:,} shards, {card.bytes / 1e6:,.1f} MB")]
    if card.read:
        tiles.append(("left of what was read", f"{card.pairs / card.read:.1%}", f"of {card.read:,} pairs"))
    if card.removed_pairs:
        tiles.append(("removed", f"{card.removed_pairs:,}", "pairs, as they were asked for"))
    if card.fetch:
        share = card.fetch.fetched / card.fetch.asked
        tiles.append(("fetched", f"{share:.1%}", f"of {card.fetch.asked:,} pictures"))
    return tiles


def _sections(card: DataCard, pictures: Mapping[str, Image.Image]) -> Iterator[PageSection]:
    yield from _ledger(card)
    yield PageSection(
        heading="Some pairs",
        note="Drawn by their keys, which are hashes; nobody chose them.",
        captioned=[
            CaptionedPicture(
                picture=pictures.get(sample.key),
                caption=sample.text,
                note=" · ".join(filter(None, (sample.address, sample.licence))),
            )
            for sample in card.kept.samples
        ],
    )
    kept = card.kept
    sources = Counts(kinds=len(kept.sources), top=kept.sources)
    for heading, counts in (
        ("Sources", sources),
        ("Languages", kept.languages),
        ("Licences", kept.licences),
        ("Hosts", kept.hosts),
        ("Formats", kept.formats),
    ):
        yield PageSection(heading=heading, tables=[_counts(heading.lower(), counts, card.pairs)])
    yield PageSection(heading="Sizes", tables=[_sizes(card)] if kept.sizes else [])
    yield from _balance(card)
    yield from _fetch(card)
    rows = [(", ".join(one.domains) or "by key", f"{one.pairs:,}", one.note or "not stated") for one in card.removed]
    yield PageSection(
        heading="Removed", tables=[PageTable(header=("of the domains", "pairs", "why"), rows=rows)] if rows else []
    )
    yield PageSection(heading="What was not looked at", text="\n".join(card.not_measured))
    yield PageSection(heading="Recipe", text=card.recipe)


def _ledger(card: DataCard) -> Iterator[PageSection]:
    if not card.stages:
        return
    read = max(card.read, 1)
    rows = [(stage.name, *(f"{count:,}" for count in (stage.read, stage.kept, stage.dropped))) for stage in card.stages]
    yield PageSection(
        heading="From what to what",
        note="What one stage kept is what the next one read; read = kept + dropped by cause."
        + ("" if card.adds_up else " It does not add up: a file of the ledger was changed."),
        plots=[
            Bars(
                title="Left after each stage",
                note="share of all pairs that were read",
                bars=[(stage.name, stage.kept / read) for stage in card.stages],
            )
        ],
        tables=[PageTable(header=("stage", "read", "kept", "dropped"), rows=rows)],
    )
    rows = [
        (f"{stage.name}: {cause.cause}", f"{cause.count:,}", f"{cause.count / max(stage.read, 1):.1%}", cause.limit,
         "; ".join(cause.examples))
        for stage in card.stages
        for cause in stage.causes
    ]  # fmt: skip
    header = ("cause", "count", "share of those read", "held against", "examples")
    yield PageSection(heading="What was dropped, and why", tables=[PageTable(header=header, rows=rows)] if rows else [])


def _counts(what: str, counts: Counts, pairs: int) -> PageTable:
    named = [(one.name, f"{one.count:,}", f"{one.count / max(pairs, 1):.1%}") for one in counts.top]
    if counts.unknown:
        named.append(("not known", f"{counts.unknown:,}", f"{counts.unknown / max(pairs, 1):.1%}"))
    note = ""
    if not counts.is_exact:
        note = f"{counts.kinds:,} or more; each count may be too low by {counts.too_low:,} at most."
    elif counts.kinds > len(counts.top):
        note = f"The {len(counts.top)} most frequent of {counts.kinds:,}."
    return PageTable(header=(what, "pairs", "share"), rows=named, note=note)


def _sizes(card: DataCard) -> PageTable:
    rows = [
        (f"{one.name}, {one.unit}",
         *(f"{value:,}" for value in (one.least, one.p5, one.p25, one.median, one.p75, one.p95, one.most)))
        for one in card.kept.sizes
    ]  # fmt: skip
    header = ("", "least", "5 %", "25 %", "median", "75 %", "95 %", "most")
    return PageTable(header=header, rows=rows, note="The share in a column's head has at most so much.")


def _balance(card: DataCard) -> Iterator[PageSection]:
    if not card.balance:
        return
    rows = [
        (f"{one.query} ({one.language})" if one.language else one.query, f"{one.before:,}", f"{one.after:,}")
        for one in card.balance.largest
    ]
    curve = card.balance.curve
    yield PageSection(
        heading="Balance",
        note=f"Rule {card.balance.rule}, t = {card.balance.t:,} pairs a query. {curve.head:,} of {curve.queries:,} "
        f"queries have more: they held {curve.head_share:.1%} of the matches, and hold {curve.head_share_after:.1%}.",
        plots=[_curves(curve)] if curve.matches else [],
        tables=[PageTable(header=("largest queries", "pairs before", "at the end"), rows=rows)] if rows else [],
    )


def _curves(curve: BalanceCurve) -> ShareCurves:
    points = curve.points
    return ShareCurves(
        title="Matches held by the most frequent queries",
        x="share of the queries, most frequent first",
        y="share of the matches",
        curves=[
            ("at the end", [(share, after) for share, _, after in points]),
            ("before", [(share, before) for share, before, _ in points]),
        ],
    )


def _fetch(card: DataCard) -> Iterator[PageSection]:
    if not card.fetch:
        return
    rows = [
        (host.host, f"{host.asked:,}", f"{host.fetched:,}",
         ", ".join(f"{count:,} {cause}" for cause, count in list(host.causes.items())[:3]))
        for host in card.fetch.hosts
    ]  # fmt: skip
    cures = {cause.cause: cause.cure for stage in card.stages if stage.name == "fetch" for cause in stage.causes}
    yield PageSection(
        heading="Fetching",
        note=f"{card.fetch.fetched:,} of {card.fetch.asked:,} pictures were fetched.",
        tables=[PageTable(header=("hosts that lost most", "asked", "fetched", "causes"), rows=rows)] if rows else [],
        text="\n".join(f"{cause}: {cure}" for cause, cure in cures.items() if cure),
    )
