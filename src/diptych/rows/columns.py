"""Rows of pairs on their way from a crawl to shards: which columns they have, and since which stage.

| column | type | since | what |
|---|---|---|---|
| `key` | string | read | 32 hexadecimal digits of the picture's address and the text, see `pair_key` |
| `text` | string | read | the captions, one a line |
| `url` | string | read | address of the picture; null where the source holds pictures |
| `place` | int64 | read | number of the sample in a source that holds pictures; null where there is an address |
| `source` | int16 | read | number of the source in the recipe |
| `page` | string | read | address of the page, where there is one |
| `licence` | string | read | what the page or the table says of the picture's licence |
| `language` | string | read | ISO 639 code: what the source says, then what the rule `language` measured |
| `width`, `height` | int32 | read | pixels, as the source says; from `describe` on as they are, upright |
| `listed_sha256` | string | read | what the list says the picture's bytes are |
| `queries` | list of int32 | match | numbers of the queries that the text matches, ascending |
| `sha256` | string | fetch | of the picture's bytes |
| `picture` | binary | fetch | its bytes; kept in a file of its own, see `work.py` |
| `captions_dropped` | int32 | text | captions of the row that the rules over texts took away |
| `clip_score` | float32 | clip-score | cosine of picture and text, the mean over the captions |
| `text_area`, `masked_score` | float32 | text-in-pictures | share of the picture that is text; the cosine without it |
| `notes` | string | people | what was done to the picture's pixels; null where nothing was |

What `describe` adds, its own page says.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

PAIRS = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        ("url", pa.string()),
        ("place", pa.int64()),
        pa.field("source", pa.int16(), nullable=False),
        ("page", pa.string()),
        ("licence", pa.string()),
        ("language", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("listed_sha256", pa.string()),
    ]
)
PICTURE = "picture"


def pair_key(address: str, text: str) -> str:
    """The key of a pair: a pure function of the picture's address and the text.

    Args:
        address: the URL, or for a source that holds pictures a name of the sample that is unique among all sources.
        text: the captions, one a line.
    """
    return hashlib.blake2b(f"{address}\n{text}".encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def pairs_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows as a table of `PAIRS`; what a row leaves out is null."""
    return pa.Table.from_pylist(list(rows), schema=PAIRS)


def with_column(rows: pa.Table, name: str, values: Any) -> pa.Table:
    """Rows with a column put in the place of the one of that name, or behind the others."""
    if name not in rows.column_names:
        return rows.append_column(name, values)
    at = rows.column_names.index(name)
    return rows.set_column(at, rows.schema.field(at), values)
