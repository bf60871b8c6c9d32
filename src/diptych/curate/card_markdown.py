"""A data card as Markdown, in the form of a dataset card of Hugging Face: it can be the README.md of a repository.

Texts of strangers become character entities wherever Markdown or HTML would see more in them than text.
"""

import json
import re
from collections.abc import Iterator, Sequence

from diptych.crawl.fetch import FetchSummary
from diptych.crawl.fetch_causes import cure_of
from diptych.curate.card_data import BalanceOnCard, Counts, DataCard, PairsOnCard, StageOnCard, shown

# Licences that the Hub knows by these names, of those that sets of pictures come under; others are told as they are.
_LICENCES = (
    "apache-2.0", "mit", "cc0-1.0", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0",
    "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nd-4.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-2.0",
    "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "odc-by", "odbl", "pddl", "unknown",
)  # fmt: skip
_SIZES = (("1K", 10**3), ("10K", 10**4), ("100K", 10**5), ("1M", 10**6), ("10M", 10**7), ("100M", 10**8),
          ("1B", 10**9), ("10B", 10**10), ("100B", 10**11), ("1T", 10**12))  # fmt: skip
_SPECIAL = re.compile(r"[&<>|`*_\[\]\\~#!$@]|:(?=\S)|(?<=www)\.", re.IGNORECASE)


def markdown(card: DataCard) -> str:
    """The card as text. Equal cards give equal texts."""
    parts = [
        *_head(card), *_what(card), *_stages(card), *_kept(card.kept), *_balance(card.balance), *_fetch(card.fetch),
        *_samples(card.kept), *_removed(card), *_not_measured(card), *_recipe(card),
    ]  # fmt: skip
    return "\n".join(parts) + "\n"


def escaped(text: str) -> str:
    """A text in which Markdown and HTML see nothing but text.

    >>> escaped("a|b <i>")
    'a&#124;b &#60;i&#62;'
    """
    return _SPECIAL.sub(lambda found: f"&#{ord(found[0])};", text)


def size_category(pairs: int) -> str:
    """How many pairs there are, as the Hub says it.

    >>> size_category(12_000_000)
    '10M<n<100M'
    """
    below = next((number for number, (_, size) in enumerate(_SIZES) if pairs < size), len(_SIZES))
    if below == len(_SIZES):
        return "n>1T"
    return f"{_SIZES[below - 1][0]}<n<{_SIZES[below][0]}" if below else "n<1K"


def _head(card: DataCard) -> Iterator[str]:
    """What the Hub reads: YAML, in which a text in JSON is a text."""
    licence = card.licence.strip().lower().replace(" ", "-")
    codes = [one.name for one in card.kept.languages.top if re.fullmatch(r"[a-z]{2,3}", one.name)]
    yield "---"
    yield f"pretty_name: {json.dumps(card.name or 'Pairs of pictures and texts')}"
    if licence in _LICENCES or not licence:
        yield f"license: {licence or 'unknown'}"
    else:
        yield from ("license: other", f"license_name: {json.dumps(card.licence)}")
    if codes:
        yield from ("language:", *(f'- "{code}"' for code in codes))  # without the marks, no is false
    yield from ("size_categories:", f"- {size_category(card.pairs)}")
    yield from ("task_categories:", "- zero-shot-image-classification", "- image-to-text", "- text-to-image")
    yield from ("---", "")


def _what(card: DataCard) -> Iterator[str]:
    yield f"# {escaped(shown(card.name) or 'Pairs of pictures and texts')}"
    yield ""
    yield f"{card.pairs:,} pictures with their texts, made by `diptych curate` of {card.read:,} pairs that were read."
    yield ""
    rows = [
        ("pairs", f"{card.pairs:,}"),
        ("shards", f"{card.shards:,} tar files in the WebDataset layout, {card.bytes:,} bytes"),
        ("SHA-256 of `manifest.json`", f"`{card.manifest_sha256}`"),
        ("licence of the set", escaped(shown(card.licence)) or "not stated"),
        ("seed", str(card.seed)),
        ("versions", ", ".join(f"{name} {version}" for name, version in card.versions.items())),
    ]
    yield from _table(("", ""), rows, numbers=False)
    yield "Two teams with the same data have the same number: the manifest lists the SHA-256 of each shard."
    yield ""


def _stages(card: DataCard) -> Iterator[str]:
    if not card.stages:
        return
    yield from ("## From what to what", "")
    rows = [
        (stage.name, f"{stage.read:,}", f"{stage.kept:,}", f"{stage.dropped:,}", _share(stage.kept, stage.read))
        for stage in card.stages
    ]
    yield from _table(("stage", "read", "kept", "dropped", "share kept"), rows)
    if card.adds_up:
        yield "It adds up, and was checked: read = kept + dropped by cause at each stage, and what one stage kept is " \
              "what the next one read."  # fmt: skip
    else:
        yield "**It does not add up**: a file of the ledger was changed."
    if card.removed_pairs:
        yield f"Of the {card.stages[-1].kept:,} pairs that the last stage kept, {card.removed_pairs:,} were removed."
    yield ""
    for stage in card.stages:
        yield from _causes(stage)


def _causes(stage: StageOnCard) -> Iterator[str]:
    if not stage.causes:
        return
    yield from (f"### Dropped by {escaped(stage.name)}", "")
    rows = [
        (
            escaped(cause.cause),
            f"{cause.count:,}",
            _share(cause.count, stage.read),
            escaped(cause.limit),
            "; ".join(map(escaped, cause.examples)),
        )
        for cause in stage.causes
    ]
    yield from _table(("cause", "count", "share of those read", "held against", "examples"), rows, text=(3, 4))


def _kept(kept: PairsOnCard) -> Iterator[str]:
    yield from ("## What is in it", "")
    total = sum(source.count for source in kept.sources)
    rows = [(escaped(source.name), f"{source.count:,}", _share(source.count, total)) for source in kept.sources]
    yield from ("### Sources", "", *_table(("source", "pairs", "share"), rows))
    for heading, counts, what in (
        ("Languages", kept.languages, "say no language"),
        ("Licences", kept.licences, "say no licence"),
        ("Hosts", kept.hosts, "have no address"),
        ("Formats", kept.formats, "have no format on record"),
    ):
        yield from (f"### {heading}", "", *_counts(heading, counts, what, total))
    rows = [
        (size.name, size.unit, *(f"{value:,}" for value in (size.least, size.p5, size.p25, size.median, size.p75,
                                                            size.p95, size.most)), f"{size.count:,}")
        for size in kept.sizes
    ]  # fmt: skip
    if rows:
        header = ("", "unit", "least", "5 %", "25 %", "median", "75 %", "95 %", "most", "of")
        yield from ("### Sizes", "", *_table(header, rows, text=(1,)))
        yield from ("The share in a column's head has at most so much. Numbers above 1,000 have three digits.", "")


def _counts(heading: str, counts: Counts, what: str, total: int) -> Iterator[str]:
    rows = [(escaped(one.name), f"{one.count:,}", _share(one.count, total)) for one in counts.top]
    if counts.unknown:
        rows.append((f"*{what}*", f"{counts.unknown:,}", _share(counts.unknown, total)))
    yield from _table((heading.lower(), "pairs", "share"), rows)
    if not counts.is_exact:
        yield (
            f"There are {counts.kinds:,} or more. Rare ones were forgotten while counting; each count may be too low "
            f"by {counts.too_low:,} at most."
        )
        yield ""
    elif counts.kinds > len(counts.top):
        yield from (f"The {len(counts.top)} most frequent of {counts.kinds:,}.", "")


def _balance(balance: BalanceOnCard | None) -> Iterator[str]:
    if not balance:
        return
    curve = balance.curve
    yield from ("## Balance", "")
    yield f"Rule {balance.rule}, t = {balance.t:,} pairs a query."
    yield ""
    rows = [
        ("queries", f"{curve.queries:,}", ""),
        ("that match a text", f"{curve.matched:,}", ""),
        ("with more than t, the head", f"{curve.head:,} ({curve.head_of_queries:.2%})", ""),
        ("matches", f"{curve.matches:,}", f"{curve.matches_after:,}"),
        ("share of matches that the head holds", f"{curve.head_share:.1%}", f"{curve.head_share_after:.1%}"),
    ]
    yield from _table(("", "before", "at the end"), rows)
    rows = [
        (escaped(f"{one.query} ({one.language})" if one.language else one.query), f"{one.before:,}", f"{one.after:,}")
        for one in balance.largest
    ]
    yield from _table(("largest queries", "before", "at the end"), rows)
    yield from ("The curve is in `card.json` under `balance.curve.points`: share of the queries, the most frequent "
                "first; share of the matches before; and at the end.", "")  # fmt: skip


def _fetch(fetch: FetchSummary | None) -> Iterator[str]:
    if not fetch:
        return
    yield from ("## Fetching", "")
    yield f"{fetch.fetched:,} of {fetch.asked:,} pictures were fetched ({_share(fetch.fetched, fetch.asked)})."
    yield ""
    rows = [
        (escaped(cause), f"{count:,}", _share(count, fetch.asked), cure_of(cause))
        for cause, count in fetch.causes.items()
    ]
    yield from _table(("cause", "count", "share", "what to do"), rows, text=(3,))
    rows = [
        (escaped(host.host), f"{host.asked:,}", f"{host.fetched:,}", escaped(_most_frequent(host.causes)))
        for host in fetch.hosts
    ]
    yield from _table(("hosts that lost most", "asked", "fetched", "causes"), rows, text=(3,))


def _most_frequent(causes: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {cause}" for cause, count in list(causes.items())[:3])


def _samples(kept: PairsOnCard) -> Iterator[str]:
    if not kept.samples:
        return
    yield from ("## Some pairs", "", "Drawn by their keys, which are hashes; nobody chose them.", "")
    rows = [
        (f"`{sample.key}`", escaped(sample.text), escaped(sample.address), escaped(sample.licence))
        for sample in kept.samples
    ]
    yield from _table(("key", "text", "address", "licence"), rows, numbers=False)


def _removed(card: DataCard) -> Iterator[str]:
    yield from ("## Removed", "")
    if not card.removed:
        yield from ("Nothing so far. `diptych curate remove` takes pairs out by key or domain, and notes it here.", "")
        return
    rows = [
        (f"{one.pairs:,}", ", ".join(map(escaped, one.domains)), escaped(one.note) or "not stated")
        for one in card.removed
    ]
    yield from _table(("pairs", "of the domains", "why"), rows, numbers=False)


def _not_measured(card: DataCard) -> Iterator[str]:
    yield from ("## What was not looked at", "")
    yield from (f"- {sentence}" for sentence in card.not_measured)
    yield ""


def _recipe(card: DataCard) -> Iterator[str]:
    ticks = max((len(run) for run in re.findall(r"`+", card.recipe)), default=0)
    fence = "`" * max(3, ticks + 1)
    yield from ("## Recipe", "", "<details><summary>Whole, with every default</summary>", "")
    yield from (f"{fence}toml", card.recipe.rstrip("\n"), fence, "", "</details>")


def _table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: bool = True, text: Sequence[int] = ()
) -> Iterator[str]:
    """A table; columns after the first are set to the right where they are numbers."""
    if not rows:
        return
    yield f"| {' | '.join(header)} |"
    right = [numbers and column > 0 and column not in text for column in range(len(header))]
    yield f"|{'|'.join('---:' if one else '---' for one in right)}|"
    yield from (f"| {' | '.join(row)} |" for row in rows)
    yield ""


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "-"
