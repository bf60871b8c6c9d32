"""Build the drawings of people in five skin tones that `diptych audit tones` shows, byte for byte.

    pip install 'diptych[pictograms]'      # exact versions of the renderer and the picture writer
    python recipes/build_tones.py src/diptych_pictograms/tones

Needs `npm` on the PATH. Art, words, renderer and size are those of `build_pictograms.py`: of Twitter's and of Google's
emoji those that Unicode gives five skin tones, each under the name of its emoji without tone and gender, so that only
these two differ between drawings of one class. A drawing that lacks a tone is left out and counted in `BUILD.json`.
"""

import argparse
import collections
import csv
import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from build_pictograms import PACKAGES, credits, encode, fetch, plain_hex, render, svg_of

from diptych.files import atomic_folder, write_json
from diptych.pairs.shards import ShardWriter

STYLES = ("twemoji", "noto")  # Twitter's, which no shipped model was trained on, and Google's, which some were
TONES = ("light", "medium-light", "medium", "medium-dark", "dark")  # Unicode's, after Fitzpatrick
FACING = "27a1"  # an emoji once more, turned to the right
MAN, WOMAN, PERSON = "1f468", "1f469", "1f9d1"
SIGNS = re.compile("-200d-264[02]")  # female and male


@dataclass(frozen=True)
class Drawing:
    """One emoji that comes in five tones."""

    code: str
    role: str  # name of the emoji without gender
    gender: str  # man, woman, person; empty where the emoji has no forms by gender
    tones: tuple[str, ...]  # code points in each of `TONES`


def drawings_of(entries: Sequence[Mapping]) -> list[Drawing]:
    """Emoji in one tone each, in the order of Unicode: people, parts of people, a few couples of one tone."""
    labels = {plain_hex(entry["hexcode"]): entry["label"].lower() for entry in entries}
    found = []
    for entry in entries:
        code = plain_hex(entry["hexcode"])
        tones = [plain_hex(skin["hexcode"]) for skin in entry.get("skins", ()) if isinstance(skin["tone"], int)]
        if len(tones) != len(TONES) or FACING in code.split("-") or code.count(MAN) + code.count(WOMAN) > 1:
            continue  # no tones, turned round, or two persons of a gender each
        neutral = without_gender(code)
        role = labels.get(neutral, labels[code])
        forms = [other for other in labels if without_gender(other) == neutral]
        found.append(Drawing(code, role, gender_of(code) if len(forms) > 1 else "", tuple(tones)))
    return found


def without_gender(code: str) -> str:
    """Code points of the emoji that leaves the gender open."""
    return re.sub(f"^({MAN}|{WOMAN})", PERSON, SIGNS.sub("", code))


def gender_of(code: str) -> str:
    parts = code.split("-")
    if "2642" in parts or parts[0] == MAN:
        return "man"
    return "woman" if "2640" in parts or parts[0] == WOMAN else "person"


def drawn(style: dict, drawings: Sequence[Drawing], counts: collections.Counter) -> list[tuple[Drawing, list]]:
    """Those that a style has in all five tones, which must differ from each other, as [64, 64, 3] uint8."""
    names = {plain_hex(code): name for code, name in style["chars"].items()}
    found = []
    for drawing in drawings:
        icons = [style["icons"].get(names.get(code, "")) for code in drawing.tones]
        if not all(icons):
            counts["lacks a tone"] += 1
            continue
        pictures = [render(svg_of(icon, style)) for icon in icons]
        if any(picture is None for picture in pictures):
            counts["not drawable"] += 1
        elif len({np.asarray(picture).tobytes() for picture in pictures}) < len(TONES):
            counts["shows no skin"] += 1
        else:
            found.append((drawing, pictures))
    return found


def write(folder: Path, drawings: Sequence[tuple[Drawing, list]]) -> None:
    """The evaluation layout, and `groups.csv` beside."""
    roles = sorted({drawing.role for drawing, _ in drawings})
    keys = [(drawing, tone, f"{drawing.code}_{tone}") for drawing, _ in drawings for tone in TONES]
    pictures = [picture for _, several in drawings for picture in several]
    with ShardWriter(folder / "test", samples_per_shard=len(keys), compress=True, name="{}") as writer:
        for (drawing, _, key), picture in zip(keys, pictures, strict=True):
            writer.add(key, {"cls": str(roles.index(drawing.role)).encode(), "webp": encode(picture)})
    (folder / "test" / "nshards.txt").write_text("1\n")
    (folder / "dataset_type.txt").write_text("classification\n")
    (folder / "classnames.txt").write_text("".join(f"{role}\n" for role in roles), encoding="utf-8")
    with (folder / "groups.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["key", "drawing", "tone", "gender"])
        rows.writerows([f"0/{key}", drawing.code, tone, drawing.gender] for drawing, tone, key in keys)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    with tempfile.TemporaryDirectory() as scratch:
        folders = {name: fetch(name, version, Path(scratch)) for name, version in PACKAGES.items()}
        iconify = folders["@iconify/json"]
        entries = json.loads((folders["emojibase-data"] / "en" / "data.json").read_text(encoding="utf-8"))
        about = json.loads((iconify / "collections.json").read_text(encoding="utf-8"))
        drawings = drawings_of(entries)
        summary: dict = {"packages": PACKAGES, "emoji": len(drawings), "sets": {}}
        with atomic_folder(out) as aside:
            for prefix in STYLES:
                counts: collections.Counter = collections.Counter()
                style = json.loads((iconify / "json" / f"{prefix}.json").read_text(encoding="utf-8"))
                found = drawn(style, drawings, counts)
                write(aside / f"tones-{prefix}", found)
                summary["sets"][prefix] = {
                    "drawings": len(found), "roles": len({drawing.role for drawing, _ in found}), "dropped": counts,
                }  # fmt: skip
            (aside / "CREDITS.md").write_text(credits(about, STYLES, PACKAGES), encoding="utf-8")
            write_json(aside / "BUILD.json", summary)
    print(json.dumps(summary, indent=2))


if __name__ == "__main__":
    main()
