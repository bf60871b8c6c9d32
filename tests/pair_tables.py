"""What tests of curation share: small tables of pairs, and rules asked about single captions."""

from typing import Any

import numpy as np
import pyarrow as pa

from diptych.captions.captions import Captions
from diptych.rows.columns import pair_key, pairs_table


def pairs_of(*texts: str, **columns: list[Any]) -> pa.Table:
    """Rows with these texts, each from an address of its own; other columns as given."""
    urls = columns.pop("url", [f"https://a.example/p/{i}" for i in range(len(texts))])
    rows = [
        {"key": pair_key(url, text), "text": text, "source": 0, "url": url}
        | {name: values[i] for name, values in columns.items() if name in ("language", "width", "height")}
        for i, (text, url) in enumerate(zip(texts, urls, strict=True))
    ]
    table = pairs_table(rows)
    for name, values in columns.items():
        if name not in table.column_names:
            kind = {"picture": pa.binary(), "sha256": pa.string(), "bytes": pa.int64()}.get(name)
            table = table.append_column(name, pa.array(values, kind))
    return table


def captions_of(*texts: str, url: str | None = None, language: str | None = None) -> Captions:
    """Captions for a rule."""
    none = [url] * len(texts), [language] * len(texts)
    return Captions(pa.array(texts, pa.string()), *(pa.array(column, pa.string()) for column in none))


def kept_by(rule: Any, *texts: str, url: str | None = None) -> list[bool]:
    """What one rule says of each text."""
    return rule.judge(captions_of(*texts, url=url)).keep.tolist()


def measured_by(rule: Any, text: str) -> str | None:
    """What one rule measures of a text."""
    return rule.judge(captions_of(text)).values(np.array([0]))[0]
