"""Stages small enough to see through, for tests of what runs them; and what two runs have in common."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from diptych.captions.balance import BalanceCurve
from diptych.crawl.fetch import FetchSummary, HostSummary
from diptych.crawl.read import PairSource
from diptych.curate.card_data import (
    BalanceOnCard,
    CauseOnCard,
    Counted,
    Counts,
    DataCard,
    PairsOnCard,
    Quantiles,
    QueryOnCard,
    SampleOnCard,
    StageOnCard,
)
from diptych.curate.pipeline import Pipeline, run_stages, write_shards
from diptych.curate.runner import LocalRunner
from diptych.files import sha256
from diptych.rows.stage import Judged, dropped


@dataclass(frozen=True, kw_only=True)
class Short:
    """Drops texts of fewer letters than asked for."""

    name: ClassVar[str] = "short"
    letters: int = 3

    def apply(self, rows, whole):
        length = pc.utf8_length(rows["text"])
        return Judged.by(rows, pc.greater_equal(length, self.letters), "short", value=length.cast(pa.string()))


@dataclass(frozen=True, kw_only=True)
class Common:
    """Drops texts whose first word is common in the whole."""

    name: ClassVar[str] = "common"
    most: int = 5

    def count(self, rows):
        return (
            rows.select([])
            .append_column("word", _first(rows))
            .append_column("n", pa.array([1] * len(rows), pa.int64()))
        )

    def total(self, counts):
        return pa.concat_tables(counts).group_by("word").aggregate([("n", "sum")]).sort_by("word")

    def apply(self, rows, whole):
        rare = whole.facts.filter(pc.field("n_sum") <= self.most)["word"]
        return Judged.by(rows, pc.is_in(_first(rows), value_set=rare), "common")


@dataclass(frozen=True, kw_only=True)
class SameWord:
    """Keeps the first row of each last word."""

    name: ClassVar[str] = "same"
    many: int = 3

    def buckets(self, rows):
        return self.many

    def scatter(self, rows, whole, buckets):
        words = [text.split()[-1] for text in rows["text"].to_pylist()]
        return pa.table(
            {
                "bucket": pa.array([sum(word.encode()) % buckets for word in words], pa.int32()),
                "row": pa.array(range(len(words)), pa.int32()),
                "word": pa.array(words, pa.string()),
            }
        )

    def resolve(self, members, whole):
        seen, verdicts = set(), []
        for member in members.to_pylist():
            if member["word"] in seen:
                verdicts.append({"part": member["part"], "row": member["row"]})
            seen.add(member["word"])
        return pa.Table.from_pylist(verdicts, pa.schema([("part", pa.int32()), ("row", pa.int32())]))

    def apply(self, rows, whole):
        gone = set(whole.verdicts["row"].to_pylist())
        return Judged.by(rows, [row not in gone for row in range(len(rows))], "same word")


@dataclass(frozen=True, kw_only=True)
class Draw:
    """Pictures out of texts; of addresses that are down, as a file lists them, there is none."""

    name: ClassVar[str] = "fetch"
    waits: ClassVar[bool] = True
    part_rows: int = 20
    down: str = ""

    def apply(self, rows, whole):
        names = json.loads(Path(self.down).read_text()) if self.down else []
        there = pc.invert(pc.is_in(rows["url"], value_set=pa.array(names, pa.string())))
        judged = Judged.by(rows, there, "down")
        pictures = [b"\xff\xd8\xff" + text.encode() for text in judged.kept["text"].to_pylist()]
        return Judged(
            kept=judged.kept.append_column("picture", pa.array(pictures, pa.binary())), dropped=judged.dropped
        )


@dataclass(frozen=True, kw_only=True)
class Dull:
    """Drops pictures without a letter, and counts how many tables it was given."""

    name: ClassVar[str] = "dull"
    reads_pictures: ClassVar[bool] = True
    letter: str = "a"

    def apply(self, rows, whole):
        keep = [self.letter.encode() in picture for picture in rows["picture"].to_pylist()]
        return Judged.by(rows.drop_columns(["picture"]), keep, "dull")


@dataclass(frozen=True, kw_only=True)
class Fails:
    """Ends with an error while a file is there."""

    name: ClassVar[str] = "fails"
    file: str

    def apply(self, rows, whole):
        from diptych.errors import DataError

        if Path(self.file).exists():
            raise DataError("the moon must be full, and is not. Wait.")
        return Judged(kept=rows, dropped=dropped(pa.array([], pa.string()), "fails"))


def _first(rows):
    return pc.list_element(pc.utf8_split_whitespace(rows["text"]), 0)


def write_rows(path: Path, count: int) -> Path:
    """A table of addresses and texts: every tenth without an address."""
    rows = [
        {"text": f"{'ab'[i % 2]}{'xyz'[i % 3] * (i % 5)} word{i // 2 % 97}", "url": f"https://h{i % 4}.example/{i}.jpg"}
        for i in range(count)
    ]
    path.write_text(
        "".join(json.dumps(row if i % 10 else {"text": row["text"], "url": ""}) + "\n" for i, row in enumerate(rows))
    )
    return path


def pipeline_of(path: Path, *stages, part_rows: int = 30) -> Pipeline:
    return Pipeline(sources=(PairSource(path=str(path), kind="table"),), part_rows=part_rows, stages=stages)


class Here:
    """Does tasks in this process, one after the other."""

    def run(self, tasks, on_done):
        for task in tasks:
            task.run()
            on_done()

    run_waiting = run


def curated(pipeline: Pipeline, out: Path, *, workers: int = 0, runner=None, **options) -> dict[str, str]:
    """Run it, with workers or in this process, and the SHA-256 of what came of it, by file."""
    if not workers:
        return _run(pipeline, out, runner or Here(), options)
    with LocalRunner(workers) as local:
        return _run(pipeline, out, local, options)


def _run(pipeline, out, runner, options):
    left = run_stages(pipeline, out / "work", runner, **options)
    write_shards(left, out, runner, size=10)
    return digests(out)


def digests(out: Path) -> dict[str, str]:
    """SHA-256 of the shards and their manifest, and of all parts."""
    files = [*out.glob("shards/[!.]*"), *out.glob("work/*/parts/[!.]*/*")]
    return {file.relative_to(out).as_posix(): sha256(file) for file in sorted(files)}


def write_pictures(folder: Path, *, count: int = 24) -> Path:
    """A folder of pictures with `metadata.csv`: cats, and twice as many dogs; number 5 has a file name for a text."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows = ["file_name,text"]
    for i in range(count):
        spots = rng.integers(0, 256, (6, 7, 3), dtype=np.uint8)
        Image.fromarray(spots).resize((240 + i, 220)).save(folder / f"{i}.png")
        text = "IMG_0001.jpg" if i == 5 else f"a photo of a {'dog' if i % 3 else 'cat'} | number {i} <b>on</b> `sofa`"
        rows.append(f'{i}.png,"{text}"')
    (folder / "metadata.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


SMALL_RECIPE = """
name = "Cats & dogs"
licence = "CC BY 4.0"
part_rows = 10

[[sources]]
path = "pictures"
licence = "CC0-1.0"
language = "en"

[match]
queries = "queries.txt"

[balance]
t = 8

[shards]
samples = 5
"""


def write_small_recipe(folder: Path, *, count: int = 24) -> Path:
    """`recipe.toml` in a folder with the pictures and the queries that it names."""
    write_pictures(folder / "pictures", count=count)
    (folder / "queries.txt").write_text("dog\ncat\nsofa set\nhorse\n", encoding="utf-8")
    (folder / "recipe.toml").write_text(SMALL_RECIPE, encoding="utf-8")
    return folder / "recipe.toml"


def small_card() -> DataCard:
    """A card with something in every part."""
    sample = SampleOnCard(key="0" * 32, shard="shard-00000.tar", text="a dog", address="https://a.example/1.jpg")
    langs = Counts(kinds=2, top=(Counted(name="no", count=2), Counted(name="en", count=1)))
    rest = Counts(kinds=1, unknown=1, top=(Counted(name="CC0", count=2),))
    width = Quantiles(name="width", unit="px", count=3, least=1, p5=1, p25=2, median=2, p75=3, p95=3, most=3)
    curve = BalanceCurve(queries=4, matched=2, head=1, matches=8, matches_after=3, head_share=0.6, head_share_after=0.5,
                         points=((0.25, 0.6, 0.5), (1.0, 1.0, 1.0)))  # fmt: skip
    host = HostSummary(host="a.example", asked=4, fetched=2, causes={"http 404": 2})
    length = CauseOnCard(cause="length", count=6, limit="at least 2 words", examples=("one", "two"))
    gone = CauseOnCard(cause="http 404", count=2, cure="The picture is gone: leave it out.")
    return DataCard(
        name='Cats & "dogs"', licence="CC BY 4.0", seed=3, recipe="seed = 3\n", versions={"diptych": "0.1"}, pairs=1,
        shards=1, bytes=10_240, manifest_sha256="ab" * 32,
        stages=(
            StageOnCard(name="read", read=9, kept=9),
            StageOnCard(name="text", read=9, kept=3, causes=(length,)),
            StageOnCard(name="fetch", read=3, kept=1, causes=(gone,)),
        ),
        balance=BalanceOnCard(rule="metaclip", t=2, curve=curve,
                              largest=(QueryOnCard(query="dog", before=5, after=2),)),
        fetch=FetchSummary(asked=4, fetched=2, causes={"http 404": 2}, hosts=(host,)),
        kept=PairsOnCard(sources=(Counted(name="crawl", count=3),), languages=langs, licences=rest, hosts=rest,
                         formats=rest, sizes=(width,), samples=(sample,)),
        not_measured=("No rule looked for faces.",),
    )  # fmt: skip
