"""Texts that stand beside many different pictures: names of sites, captions of a template."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from diptych.captions.characters import hashes_of
from diptych.errors import ConfigError
from diptych.rows.stage import Judged, Whole

_BUCKET_ROWS = 4_000_000


@dataclass(frozen=True, kw_only=True)
class RepeatedTexts:
    """All rows of a text that more pictures have than `max_pictures`, in the whole of the rows.

    Texts are the same where they differ in case and white space alone. Pictures are the same by their bytes, before
    they are fetched by their address: one logo on every page of a site is one picture.

    Source: ALIGN (arXiv:2102.05918, section 3: texts shared by more than 10 images are dropped) and COYO-700M (its
    README: all that appear more than 10 times). Both were of billions of pairs.
    """

    max_pictures: int = 10
    name: ClassVar[str] = "texts-repeated"

    def __post_init__(self) -> None:
        if self.max_pictures < 1:
            raise ConfigError(f"max_pictures must be at least 1. Got {self.max_pictures}.")

    def buckets(self, rows: int) -> int:
        return max(1, -(-rows // _BUCKET_ROWS))

    def scatter(self, rows: pa.Table, whole: Whole, buckets: int) -> pa.Table:  # noqa: ARG002  # as all stages take it
        texts = hashes_of(rows["text"])
        return pa.table(
            {
                "bucket": pa.array((texts % np.uint64(buckets)).astype(np.int32)),
                "row": pa.array(np.arange(len(rows), dtype=np.int32)),
                "text": pa.array(texts),
                "picture": pa.array(hashes_of(_pictures(rows))),
            }
        )

    def resolve(self, members: pa.Table, whole: Whole) -> pa.Table:  # noqa: ARG002
        counts = members.group_by("text").aggregate([("picture", "count_distinct")])
        many = counts.filter(pc.greater(counts["picture_count_distinct"], self.max_pictures))
        at = pc.index_in(members["text"], many["text"].combine_chunks())
        found = members.filter(pc.is_valid(at))
        pictures = many["picture_count_distinct"].take(pc.drop_null(at))
        return pa.table({"part": found["part"], "row": found["row"], "pictures": pictures})

    def apply(self, rows: pa.Table, whole: Whole) -> Judged:
        assert whole.verdicts is not None
        pictures = np.zeros(len(rows), np.int64)
        pictures[whole.verdicts["row"].to_numpy()] = whole.verdicts["pictures"].to_numpy()
        value = pc.binary_join_element_wise(pa.array(pictures).cast(pa.string()), "pictures", " ")
        limit = f"at most {self.max_pictures:,} pictures with one text"
        return Judged.by(rows, pa.array(pictures == 0), self.name, value=value, limit=limit)


def _pictures(rows: pa.Table) -> Any:
    """[N] texts that tell pictures apart."""
    place = pc.binary_join_element_wise(rows["source"].cast(pa.string()), rows["place"].cast(pa.string()), ":")
    known = [rows[name] for name in ("sha256", "url") if name in rows.column_names]
    return pc.coalesce(*known, place, rows["key"])
