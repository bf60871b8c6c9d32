"""The data card of a curation: `card.json`, and `card.md` for people, made from the ledger and what the shards hold.

Both say nothing that is not in the folder of the curation, hold no date, and are the same for the same shards.
"""

import dataclasses
import json
import platform
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from diptych.captions.balance import added, curve, match_counts
from diptych.captions.language import Languages
from diptych.captions.match import queries_of
from diptych.captions.text_patterns import PersonalData
from diptych.config import from_dict, to_dict, to_toml
from diptych.crawl.fetch import FetchSummary, summary
from diptych.crawl.fetch_causes import cure_of
from diptych.curate.card_counts import PairFacts
from diptych.curate.card_data import (
    BalanceOnCard,
    CauseOnCard,
    DataCard,
    PairsOnCard,
    QueryOnCard,
    RemovedOnCard,
    StageOnCard,
    shown,
)
from diptych.curate.card_markdown import markdown
from diptych.curate.ledger import StageCounts, examples, read_ledger, stage_folders
from diptych.curate.recipe import CurateRecipe, read_curate_recipe
from diptych.curate.remove import Removal, all_removed, removed_before
from diptych.curate.work import PartedRows, facts_file, mark_after, part_folder, read_table, sizes_file, stage_file
from diptych.data.images import PICTURE_ENDINGS
from diptych.data.tar import TarReader
from diptych.errors import DataError, DiptychError
from diptych.files import sha256, write_json, write_text
from diptych.pairs.shards import MANIFEST
from diptych.rows.columns import PAIRS
from diptych.version import __version__

CARD, CARD_JSON = "card.md", "card.json"
_COLUMNS = (*PAIRS.names, "format", "bytes")
_EXAMPLES = 3  # of each cause
_VALUE_LENGTH = 120  # characters of one
_LARGEST = 20  # queries that are named
_LOCAL = re.compile(r"/|~|[A-Za-z]:[\\/]")  # how a path of this machine begins
_NAMES = {"jpg": "jpeg", "tif": "tiff"}  # of formats, where an ending differs


def write_card(recipe: CurateRecipe, out: Path) -> Path:
    """Write the card of a curation that is whole.

    Args:
        recipe: what was carried out.
        out: its folder, with `work/` and `shards/`.

    Returns:
        Path of the Markdown; the JSON lies beside it.

    Raises:
        DataError: the ledger does not add up, or the disk is full.
    """
    return _written(_of_work(recipe, out), out)


def write_card_again(out: Path) -> Path | None:
    """Write the card once more after pairs were removed: nothing of them stays in it.

    Where `work/` is gone, or is of another recipe by now, what is told of stages, balance and fetching stays as it was,
    and what is told of the pairs is read from the shards.

    Args:
        out: folder of the curation.

    Returns:
        Path of the Markdown; None where there was no card, and no work that one can be made of.
    """
    if _is_of_shards(out):
        return write_card(read_curate_recipe(out / "recipe.toml"), out)
    if not (out / CARD_JSON).is_file():
        (out / CARD).unlink(missing_ok=True)
        return None
    before = read_card(out)
    kept = _kept_in_shards(out, [source.name for source in before.kept.sources])
    removal = all_removed(out)
    stages = tuple(
        dataclasses.replace(stage, causes=tuple(_without(cause, removal) for cause in stage.causes))
        for stage in before.stages
    )
    card = dataclasses.replace(before, stages=stages, kept=kept, removed=_removed(out), **_shards(out))
    return _written(card, out)


def read_card(out: Path) -> DataCard:
    """The card of a curation, as plain data.

    Raises:
        DataError: there is none, or it is damaged.
    """
    path = out / CARD_JSON
    try:
        return from_dict(DataCard, json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, DiptychError) as error:
        raise DataError(f"{path} must be the data card of `diptych curate`, and cannot be read: {error}") from error


def _written(card: DataCard, out: Path) -> Path:
    write_json(out / CARD_JSON, to_dict(card))
    write_text(out / CARD, markdown(card))
    return out / CARD


def _of_work(recipe: CurateRecipe, out: Path) -> DataCard:
    work, removal = out / "work", all_removed(out)
    folders = stage_folders(work)
    facts = PairFacts([source_name(source) for source in recipe.sources])
    size, first = recipe.shards.samples, 0
    for rows in _tables(folders[-1], _COLUMNS):
        stays = _stays(rows, removal)
        numbers = (first + np.flatnonzero(stays)) // size
        facts.add(rows.filter(pa.array(stays)), [f"shard-{number:05}.tar" for number in numbers.tolist()])
        first += len(rows)
    shards = _shards(out)
    assert facts.pairs == shards["pairs"], f"{facts.pairs} pairs in the work, {shards['pairs']} in the shards"
    return DataCard(
        name=recipe.name,
        licence=recipe.licence,
        seed=recipe.seed,
        recipe=to_toml(from_dict(CurateRecipe, _without_folders(to_dict(recipe)))),
        versions={
            "diptych": __version__,
            "python": platform.python_version(),
            "pyarrow": pa.__version__,
            "numpy": np.__version__,
        },
        stages=tuple(_stage(*one, removal) for one in zip(folders, read_ledger(work), strict=True)),
        balance=_balance(folders, recipe, removal),
        fetch=_fetch(folders),
        kept=facts.on_card(),
        removed=_removed(out),
        not_measured=tuple(_not_measured(recipe)),
        **shards,
    )


def source_name(source: Any) -> str:
    """What a source is called on the card: as it is named, or the last part of its path."""
    return source.name or _without_folder(source.path)


def _shards(out: Path) -> dict[str, Any]:
    manifest = out / "shards" / MANIFEST
    told = json.loads(manifest.read_text(encoding="utf-8"))
    return {
        "pairs": told["samples"],
        "shards": len(told["shards"]),
        "bytes": sum(shard["bytes"] for shard in told["shards"]),
        "manifest_sha256": sha256(manifest),
    }


def _is_of_shards(out: Path) -> bool:
    """Whether the shards are what came of the work as it is now."""
    folder, folders = out / "work" / "shards", stage_folders(out / "work")
    if not folders or not stage_file(folder).is_file():
        return False
    before = json.loads(stage_file(folder).read_text(encoding="utf-8"))["before"]
    listed = json.loads((out / "shards" / MANIFEST).read_text(encoding="utf-8"))["shards"]
    facts = sorted(folder.glob("[0-9]*.json"))
    return before == mark_after(folders[-1]) and listed == [json.loads(file.read_text("utf-8")) for file in facts]


def _tables(folder: Path, columns: tuple[str, ...]) -> Iterator[pa.Table]:
    """The rows that a stage kept, part by part; those of the columns that it has."""
    for part in range(len(PartedRows(folder=folder).sizes())):
        path = part_folder(folder, part) / "rows.parquet"
        there = pq.read_schema(path).names
        yield read_table(path, columns=[name for name in columns if name in there])


def _stays(rows: pa.Table, removal: Removal) -> np.ndarray:
    """[N] booleans: what did not have to go."""
    stays = ~pc.is_in(rows["key"], value_set=pa.array(removal.keys, pa.string())).to_numpy()
    for name in ("url", "page"):
        for domain in removal.domains:
            may = pc.match_substring(pc.fill_null(rows[name], ""), domain.strip("."), ignore_case=True)
            for row in np.flatnonzero(may.to_numpy()).tolist():
                stays[row] &= not removal.wants("", [rows[name][row].as_py()])
    return stays


def _stage(folder: Path, counts: StageCounts, removal: Removal) -> StageOnCard:
    return StageOnCard(
        name=counts.name,
        read=counts.read,
        kept=counts.kept,
        causes=tuple(
            _without(_cause(folder, counts.name, cause, count), removal) for cause, count in counts.dropped.items()
        ),
    )


def _cause(folder: Path, stage: str, cause: str, count: int) -> CauseOnCard:
    found = examples(folder, cause, 20 * _EXAMPLES)
    values = dict.fromkeys(shown(value, _VALUE_LENGTH) for value in found["value"].to_pylist() if value)
    return CauseOnCard(
        cause=shown(cause, _VALUE_LENGTH),
        count=count,
        limit=shown(found["limit"][0].as_py() if len(found) else ""),
        examples=tuple(values)[:_EXAMPLES],
        cure=cure_of(cause) if stage == "fetch" else "",
    )


def _without(cause: CauseOnCard, removal: Removal) -> CauseOnCard:
    """A cause without examples that name what had to go: the key of a duplicate, an address."""
    names = [*removal.keys, *(domain.lower().strip(".") for domain in removal.domains)]
    left = tuple(value for value in cause.examples if not any(name in value.lower() for name in names))
    return dataclasses.replace(cause, examples=left)


def _balance(folders: list[Path], recipe: CurateRecipe, removal: Removal) -> BalanceOnCard | None:
    folder = next((folder for folder in folders if folder.name.endswith("-balance")), None)
    if not (folder and recipe.balance and recipe.match and Path(recipe.match.queries).is_file()):
        return None  # also where the list is gone by now: a pair must be removable all the same
    options, facts = recipe.balance, read_table(facts_file(folder))
    texts = queries_of(recipe.match.queries).texts
    columns = ("key", "url", "page", "language", "queries")
    tables = (rows.filter(pa.array(_stays(rows, removal))) for rows in _tables(folders[-1], columns))
    after = added(match_counts(rows, options.per_language) for rows in tables)
    names = ["language", "query"]
    both = facts.join(after.rename_columns([*names, "after"]), names, use_threads=False)
    order = [("count", "descending"), ("language", "ascending"), ("query", "ascending")]
    return BalanceOnCard(
        rule=options.rule,
        t=options.t,
        curve=curve(facts, after, len(texts)),
        largest=tuple(
            QueryOnCard(
                query=shown(texts[row["query"]]),
                language=shown(row["language"]),
                before=row["count"],
                after=row["after"] or 0,
            )
            for row in both.sort_by(order).slice(0, _LARGEST).to_pylist()
        ),
    )


def _fetch(folders: list[Path]) -> FetchSummary | None:
    """Success by cause and host, where something was fetched from the network."""
    number = next((number for number, folder in enumerate(folders) if folder.name.endswith("-fetch")), 0)
    if not number:
        return None
    folder, sizes = folders[number], json.loads(sizes_file(folders[number]).read_text(encoding="utf-8"))
    counts = json.loads((part_folder(folder, 0) / "counts.json").read_text(encoding="utf-8"))
    rows = PartedRows(folder=folders[number - 1], part_rows=counts["read"] or 1)
    parts = (
        (rows.table(part).select(["key", "url"]), read_table(part_folder(folder, part) / "dropped.parquet"))
        for part in range(len(sizes))
    )
    asked = ((some.filter(pc.is_valid(some["url"])), gone) for some, gone in parts)
    found = summary(asked)
    return found if found.asked else None


def _kept_in_shards(out: Path, sources: list[str]) -> PairsOnCard:
    facts = PairFacts(sources)
    for shard in json.loads((out / "shards" / MANIFEST).read_text(encoding="utf-8"))["shards"]:
        reader = TarReader(out / "shards" / shard["file"])
        rows = [_row(reader, sample.key, sample.parts) for sample in reader.index().samples]
        extra = pa.schema([("format", pa.string()), ("bytes", pa.int64())])
        schema = pa.unify_schemas([PAIRS, extra])
        facts.add(pa.Table.from_pylist(rows, schema), [shard["file"]] * len(rows))
    return facts.on_card()


def _row(reader: TarReader, key: str, parts: Mapping[str, tuple[int, int]]) -> dict[str, Any]:
    ending = next(ending for ending in parts if ending in PICTURE_ENDINGS)
    return json.loads(reader.read(*parts["json"])) | {
        "key": key,
        "text": reader.read(*parts["txt"]).decode(),
        "format": _NAMES.get(ending, ending),
        "bytes": parts[ending][1],
    }


def _removed(out: Path) -> tuple[RemovedOnCard, ...]:
    return tuple(
        RemovedOnCard(pairs=len(entry["keys"]), domains=tuple(map(shown, entry["domains"])), note=shown(entry["note"]))
        for entry in removed_before(out)
    )


def _without_folders(value: Any) -> Any:
    """Options without what they tell of the machine: folders of paths, names and keys within URLs."""
    if isinstance(value, Mapping):
        return {name: _without_folders(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_without_folders(one) for one in value]
    return _without_folder(value) if isinstance(value, str) else value


def _without_folder(value: str) -> str:
    if _LOCAL.match(value):
        return re.split(r"[\\/]", value.rstrip("\\/"))[-1]
    if "://" in value:
        address = urlsplit(value)
        return f"{address.scheme}://{address.netloc.rpartition('@')[2]}{address.path}"
    return value


def _not_measured(recipe: CurateRecipe) -> Iterator[str]:
    """What a reader may take for granted and nobody looked at."""
    if not recipe.people:
        yield "No rule looked for faces or people in pictures."
    yield "Nobody who is in a picture, or made one, was asked whether they agree to be in the set."
    if not recipe.deny:
        yield "No rule judged what pictures show: violent, sexual or hateful ones may be among them."
    yield "Licences are what pages and tables say. Nobody checked whether they are true."
    kinds = {type(rule) for rule in recipe.text.rules}
    if PersonalData not in kinds:
        yield "Texts were not searched for mail addresses, telephone numbers and the like."
    if Languages not in kinds:
        yield "Languages are what the sources say; none was measured."
    if not (recipe.score or recipe.text_in_pictures):
        yield "Whether a text fits its picture was not measured."
    if not recipe.duplicates.features:
        yield "Pictures that show the same and do not look the same were not looked for."
    if not recipe.overlap:
        yield "Pictures of evaluation sets were not looked for: some may be among the pairs."
    if not recipe.fetch.respect_robots:
        yield "Pictures were fetched without asking robots.txt."
    if not recipe.fetch.respect_opt_out:
        yield "Pictures were fetched that their sites reserve from mining."
