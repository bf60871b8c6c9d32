"""Build the embedded pairs (emoji and icons with captions) from registry packages, byte for byte.

    pip install 'diptych[pictograms]'      # exact versions of the renderer and the picture writer
    python recipes/build_pictograms.py src/diptych_pictograms/pictograms          # what ships in the package
    python recipes/build_pictograms.py pictograms-colour --full colour      # the big corpus, outside the package
    python recipes/build_pictograms.py pictograms-all --full all            # and emoji of two more packages
    python recipes/build_pictograms.py pictograms-emoji --full emoji        # of the last one, all but the icons

Needs `npm` on the PATH: the art comes from the package `@iconify/json`, for the biggest corpus also from `openmoji` and
`@lobehub/fluent-emoji-3d`; the words from `emojibase-data`; at the versions below. Every step that drops a picture
counts it by cause; the counts are printed and end in `BUILD.json`.
"""

import argparse
import collections
import dataclasses
import hashlib
import io
import json
import os
import re
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import resvg_py
from PIL import Image

from diptych.files import atomic_folder, write_json
from diptych.pairs.shards import ShardWriter

PACKAGES = {"@iconify/json": "2.2.535", "emojibase-data": "17.0.0"}
MORE_PACKAGES = {"openmoji": "17.0.0", "@lobehub/fluent-emoji-3d": "1.1.0"}  # of the corpus "all"
RENDERED_SIDE = 64  # pixels; the demo trains on crops of 48
TAGS = 5  # of an emoji, that make its second caption
QUALITY = 80  # WebP; lossless instead wherever that is smaller
SHARD_SAMPLES = 4096

HELD_OUT = "twemoji"
FLAGS = {"circle-flags", "cif", "flag", "flagpack"}  # named by region, e.g. "fr", or "fr-4x3"
EMOJI = FLAGS | {
    "emojione", "emojione-monotone", "emojione-v1", "fluent-emoji", "fluent-emoji-flat", "fluent-emoji-high-contrast",
    "fxemoji", "noto", "noto-v1", "openmoji", "streamline-emojis",
}  # fmt: skip
# Emoji of the corpus "all" that are files named by code points, such as 1F600.svg: where they lie, and whose they are.
EMOJI_FILES = {
    "openmoji-black": (
        "openmoji", "black/svg", {
            "name": "OpenMoji, black", "author": {"name": "OpenMoji", "url": "https://openmoji.org"},
            "license": {"title": "CC BY-SA 4.0", "url": "https://creativecommons.org/licenses/by-sa/4.0/"},
        }
    ),
    "fluent-emoji-3d": (
        "@lobehub/fluent-emoji-3d", "assets", {
            "name": "Fluent Emoji, 3D",
            "author": {"name": "Microsoft Corporation", "url": "https://github.com/microsoft/fluentui-emoji"},
            "license": {"title": "MIT", "url": "https://github.com/microsoft/fluentui-emoji/blob/main/LICENSE"},
        }
    ),
}  # fmt: skip
ICON_SETS = (
    "flat-color-icons", "streamline-color", "streamline-plump-color", "streamline-kameleon-color", "icon-park",
    "marketeq", "meteocons", "fluent-color",
)  # fmt: skip
# No non-commercial, no GPL: what is trained on the full corpora goes into the package as well.
LICENCES = {"MIT", "Apache-2.0", "CC0-1.0", "CC-BY-4.0", "CC-BY-3.0", "ISC", "Unlicense", "BSD-3-Clause"}
SHARE_ALIKE = {"CC-BY-SA-4.0"}  # emoji of the corpus "all" only; what is trained on it is under the same licence

# A picture of the training part is a near copy of a held-out one when their 16x16 pixels correlate this much.
NEAR_COPY = 0.97
# More than this share of all pixels in one colour leaves nothing to see.
BLANK = 0.995

SKIN_TONE = re.compile(r"-(?:(?:medium-)?(?:light|dark)|medium)(?:-skin-tone)?(?:-|$)")
ASPECT = re.compile(r"-\dx\d$")  # of a flag
STYLE_WORDS = (
    "outline|outlined|filled|fill|bold|duotone|duo|rounded|round|sharp|twotone|two-tone|light|thin|solid|line|linear|"
    "flat|color|colour|colored|regular|medium|alt|broken|16|20|24|28|32|48|[0-9]+"
)
STYLE_SUFFIX = re.compile(rf"(?:-(?:{STYLE_WORDS}))+$")


@dataclasses.dataclass(frozen=True)
class Icon:
    """One drawing before it is a picture."""

    key: str  # SET/NAME
    svg: str
    captions: tuple[str, ...]  # the first one is the name
    toned: bool = False  # an emoji in one of the five skin tones

    @property
    def prefix(self) -> str:
        """The set."""
        return self.key.split("/")[0]


class EmojiWords:
    """Names and tags of emoji (English), found by code points or by name."""

    def __init__(self, folder: Path) -> None:
        entries = json.loads((folder / "en" / "data.json").read_text(encoding="utf-8"))
        self.by_hex = {plain_hex(entry["hexcode"]): entry for entry in entries}
        self.by_name = {squeeze(entry["label"]): plain_hex(entry["hexcode"]) for entry in entries}
        self.toned: dict[str, tuple[str, str]] = {}  # code points of the emoji without a tone, name with the tone
        for entry in entries:
            for skin in entry.get("skins", ()):
                if isinstance(skin["tone"], int):  # not two persons, each of their own
                    code = plain_hex(skin["hexcode"])
                    self.toned[code] = plain_hex(entry["hexcode"]), skin["label"].lower()
                    self.by_name.setdefault(squeeze(skin["label"]), code)
                    self.by_name.setdefault(squeeze(skin["label"].removesuffix("skin tone")), code)

    def learn_names(self, data: dict) -> None:
        """Take over the names and aliases of a set that tells its code points; older sets use them."""
        codes = {name: plain_hex(code) for code, name in data["chars"].items()}
        codes |= {name: codes.get(alias["parent"], "") for name, alias in data.get("aliases", {}).items()}
        for name, code in codes.items():
            if code in self.by_hex:
                self.by_name.setdefault(squeeze(name), code)

    def hex_of(self, name: str) -> str | None:
        """Code points for an icon's name, e.g. 'red-apple', 'redapple' or 'flag-for-france'."""
        name = re.sub(r"^(flag-for-)+(flag-)?", "flag-", name)
        return self.by_name.get(squeeze(name)) or self.by_name.get(squeeze(re.sub(r"-\d+$", "", name)))

    def captions(self, code: str) -> tuple[str, ...]:
        """The label, then its tags as one line; in a skin tone, the label without it and with it."""
        if code in self.toned:
            base, label = self.toned[code]
            return self.by_hex[base]["label"].lower(), label
        entry = self.by_hex[code]
        label = entry["label"].lower()
        tags = [tag for tag in entry.get("tags", ()) if tag not in label]
        return (label, ", ".join(tags[:TAGS])) if tags else (label,)


def plain_hex(code: str) -> str:
    return code.lower().replace("-fe0f", "")


def squeeze(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def fetch(package: str, version: str, into: Path) -> Path:
    """Unpack one npm package; its folder."""
    packed = subprocess.run(
        ["npm", "pack", f"{package}@{version}", "--silent"], cwd=into, check=True, capture_output=True, text=True
    ).stdout.split()[-1]
    folder = into / packed.removesuffix(".tgz")
    with tarfile.open(into / packed) as tar:
        tar.extractall(folder, filter="data")
    return folder / "package"


def icons_of(data: dict, words: EmojiWords, dropped: collections.Counter, *, tones: bool) -> Iterator[Icon]:
    """The drawings of one set, without hidden icons and those that have no words; emoji in skin tones if asked for."""
    prefix = data["prefix"]
    codes = {name: plain_hex(code) for code, name in data.get("chars", {}).items()}
    seen: set[tuple[str, str | None]] = set()
    for name in sorted(data["icons"]):
        icon = data["icons"][name]
        captions, cause, toned = (), None, False
        if icon.get("hidden"):
            cause = "hidden"
        elif prefix == HELD_OUT or prefix in EMOJI:
            shape = ASPECT.search(name)
            code = flag_hex(ASPECT.sub("", name)) if prefix in FLAGS else codes.get(name) or words.hex_of(name)
            toned = code in words.toned
            if code not in words.by_hex and not (tones and toned):
                cause = "skin tone" if SKIN_TONE.search(name) else "not a known emoji"
            elif (code, shape and shape.group()) in seen:
                cause = "same emoji again"
            else:
                captions = words.captions(code)
                seen.add((code, shape and shape.group()))
        else:
            captions = icon_captions(name)
            cause = None if captions else "no words"
        if cause:
            dropped[f"{prefix}: {cause}"] += 1
        else:
            yield Icon(f"{prefix}/{name}", svg_of(icon, data), captions, toned)


def emoji_files(
    folder: Path, prefix: str, words: EmojiWords, dropped: collections.Counter
) -> list[tuple[Icon, np.ndarray]]:
    """The drawings of a folder of SVG or WebP files named by code points, without unknown emoji."""
    drawn, seen = [], set()
    shortest_first = sorted(folder.iterdir(), key=lambda path: (len(path.stem), path.stem))  # an emoji before its tones
    for path in shortest_first:
        code = plain_hex(path.stem)
        if code in seen or (code not in words.by_hex and code not in words.toned):
            dropped[f"{prefix}: {'same emoji again' if code in seen else 'not a known emoji'}"] += 1
            continue
        seen.add(code)
        svg = path.read_text(encoding="utf-8") if path.suffix == ".svg" else ""
        pixels = render(svg) if svg else shrunk(path)
        if pixels is None:
            dropped[f"{prefix}: blank or not drawable"] += 1
        else:
            drawn.append((Icon(f"{prefix}/{code}", svg, words.captions(code), code in words.toned), pixels))
    return drawn


def shrunk(path: Path) -> np.ndarray:
    """[64, 64, 3] uint8 over white, of a square picture with transparency."""
    picture = Image.open(path).convert("RGBA").resize((RENDERED_SIDE, RENDERED_SIDE), Image.Resampling.BICUBIC)
    ground = Image.new("RGBA", picture.size, "white")
    return np.asarray(Image.alpha_composite(ground, picture).convert("RGB"))


def flag_hex(region: str) -> str:
    """Code points of a flag, e.g. '1f1eb-1f1f7' for 'fr'; parts of a country, e.g. 'gb-sct', are spelled in tags."""
    if "-" in region:
        return "-".join(["1f3f4", *(f"{0xE0000 + ord(sign):x}" for sign in region.replace("-", "")), "e007f"])
    return "-".join(f"{0x1F1E6 + ord(letter) - ord('a'):x}" for letter in region)


def icon_captions(name: str) -> tuple[str, ...]:
    words = STYLE_SUFFIX.sub("", name).replace("-", " ").strip()
    return (words,) if re.search(r"[a-z]{2}", words) else ()


def svg_of(icon: dict, data: dict) -> str:
    """A square SVG document; one-colour parts become dark grey."""
    left, top = (icon.get(k, data.get(k, 0)) for k in ("left", "top"))
    width, height = (icon.get(k, data.get(k, 16)) for k in ("width", "height"))
    side = max(width, height)
    box = f"{left - (side - width) / 2:g} {top - (side - height) / 2:g} {side:g} {side:g}"
    body = icon["body"].replace("currentColor", "#333333")
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{box}">{body}</svg>'
    )


def render(svg: str) -> np.ndarray | None:
    """[64, 64, 3] uint8 over white, or None when the drawing cannot be drawn or is blank."""
    try:
        png = resvg_py.svg_to_bytes(
            svg_string=svg, width=RENDERED_SIDE, height=RENDERED_SIDE, background="#ffffff", skip_system_fonts=True
        )
    except ValueError:
        return None
    pixels = np.asarray(Image.open(io.BytesIO(bytes(png))).convert("RGB"))
    if pixels.shape[:2] != (RENDERED_SIDE, RENDERED_SIDE):  # it has no size, so it is drawn in one of its own
        return None
    colours = pixels.astype(np.uint32) @ np.array([1, 256, 65536], dtype=np.uint32)
    _, counts = np.unique(colours, return_counts=True)
    return None if counts.max() > BLANK * counts.sum() else pixels


def encode(pixels: np.ndarray) -> bytes:
    """WebP, lossy or lossless, whichever is smaller."""
    image = Image.fromarray(pixels)
    lossy, lossless = io.BytesIO(), io.BytesIO()
    image.save(lossy, "WEBP", quality=QUALITY, method=6)
    image.save(lossless, "WEBP", lossless=True, method=4)
    return min(lossy.getvalue(), lossless.getvalue(), key=len)


def draw(icon: Icon) -> tuple[Icon, np.ndarray | None]:
    return icon, render(icon.svg)


def thumbnail(pixels: np.ndarray) -> np.ndarray:
    """[768] float32 of zero mean and unit length: the dot product of two is their correlation."""
    small = pixels.reshape(16, 4, 16, 4, 3).mean(axis=(1, 3), dtype=np.float32).reshape(-1)
    small -= small.mean()
    return small / max(float(np.linalg.norm(small)), 1e-6)


def build(
    sets: Sequence[str], words: EmojiWords, json_folder: Path, dropped: collections.Counter, *, tones: bool = False
) -> list[tuple[Icon, np.ndarray]]:
    """Drawings of several sets as pictures; what cannot be drawn is counted."""
    icons: list[Icon] = []
    for prefix in sets:
        data = json.loads((json_folder / f"{prefix}.json").read_text(encoding="utf-8"))
        icons += icons_of(data, words, dropped, tones=tones)
    drawn = []
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for icon, pixels in pool.map(draw, icons, chunksize=64):
            if pixels is None:
                dropped[f"{icon.prefix}: blank or not drawable"] += 1
            else:
                drawn.append((icon, pixels))
    return drawn


def without_copies(
    training: Sequence[tuple[Icon, np.ndarray]], held_out: Sequence[np.ndarray], dropped: collections.Counter
) -> list[tuple[Icon, np.ndarray]]:
    """The training pictures that are no near copy of a held-out one and do not repeat another, name and all."""
    test = np.stack([thumbnail(pixels) for pixels in held_out])  # [N, 768]
    kept, seen = [], set()
    for start in range(0, len(training), 1024):
        batch = training[start : start + 1024]
        nearest = (np.stack([thumbnail(pixels) for _, pixels in batch]) @ test.T).max(axis=1)  # [B]
        for (icon, pixels), correlation in zip(batch, nearest, strict=True):
            identity = (icon.captions[0], hashlib.sha256(pixels).digest())
            if identity in seen:
                dropped[f"{icon.prefix}: same picture and name again"] += 1
            elif correlation >= NEAR_COPY:
                dropped[f"{icon.prefix}: near copy of a held-out picture"] += 1
            else:
                kept.append((icon, pixels))
            seen.add(identity)
    return kept


def write_training(folder: Path, pairs: Sequence[tuple[Icon, np.ndarray]]) -> None:
    # Shards are read in a random order of samples, yet a stranger who reads one from the front should see a mixture.
    order = np.random.Generator(np.random.PCG64(0)).permutation(len(pairs))
    with ShardWriter(folder, samples_per_shard=SHARD_SAMPLES, compress=True) as writer, ProcessPoolExecutor() as pool:
        encoded = pool.map(encode, (pairs[i][1] for i in order), chunksize=64)
        for i, picture in zip(order, encoded, strict=True):
            icon = pairs[i][0]
            writer.add(icon.key, {"webp": picture, "txt": "\n".join(icon.captions).encode()})


def write_held_out(folder: Path, pairs: Sequence[tuple[Icon, np.ndarray]]) -> None:
    """The evaluation layout: one class an emoji, one picture a class."""
    split = folder / "test"
    with ShardWriter(split, samples_per_shard=len(pairs), compress=True, name="{}") as writer:
        for target, (icon, pixels) in enumerate(pairs):
            writer.add(icon.key, {"cls": str(target).encode(), "webp": encode(pixels)})
    (split / "nshards.txt").write_text("1\n")
    (folder / "dataset_type.txt").write_text("classification\n")
    (folder / "classnames.txt").write_text("".join(f"{icon.captions[0]}\n" for icon, _ in pairs))
    (folder / "zeroshot_classification_templates.txt").write_text("{c}\n")


def credits(about: dict, sets: Iterable[str], packages: Mapping[str, str]) -> str:
    """Authors and licences as a Markdown page."""
    icons, words, *more = (f"npm package `{name}` {version}" for name, version in packages.items())
    icons = " and the ".join([icons, *more])
    lines = [
        "# Credits for the drawings",
        "",
        f"The drawings come from these icon sets, as packed in the {icons}. Each was changed in one way: rendered to",
        f"{RENDERED_SIDE} x {RENDERED_SIDE} pixels over white. Names and tags of emoji come from the {words}",
        "(MIT, Miles Johnson), which takes them from Unicode CLDR.",
        "",
        "| set | author | licence |",
        "|---|---|---|",
    ]
    for prefix in sets:
        name, author, licence = about[prefix]["name"], about[prefix]["author"], about[prefix]["license"]
        lines.append(f"| {name} (`{prefix}`) | {_link(author['name'], author)} | {_link(licence['title'], licence)} |")
    return "\n".join([*lines, ""])


def _link(text: str, target: dict) -> str:
    return f"[{text}]({target['url']})" if target.get("url") else text


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--full", choices=["colour", "all", "emoji"], help="the big corpus instead of the embedded one")
    arguments = parser.parse_args()
    everything = arguments.full in ("all", "emoji")
    packages = PACKAGES | (MORE_PACKAGES if everything else {})
    with tempfile.TemporaryDirectory() as scratch:
        folders = {name: fetch(name, version, Path(scratch)) for name, version in packages.items()}
        iconify, words = folders["@iconify/json"], EmojiWords(folders["emojibase-data"])
        for prefix in (HELD_OUT, "noto"):
            words.learn_names(json.loads((iconify / "json" / f"{prefix}.json").read_text(encoding="utf-8")))
        about = json.loads((iconify / "collections.json").read_text(encoding="utf-8"))
        sets = [*sorted(EMOJI), *ICON_SETS]
        if arguments.full:
            sets = [p for p in about if p != HELD_OUT and (everything or about[p].get("palette"))]
        if arguments.full == "emoji":
            sets = [p for p in sets if p in EMOJI]
        shared = SHARE_ALIKE if everything else set()
        sets = [p for p in sets if about[p]["license"].get("spdx") in LICENCES | (shared if p in EMOJI else set())]
        dropped: collections.Counter = collections.Counter()
        held_out = build([HELD_OUT], words, iconify / "json", dropped)
        training = build(sets, words, iconify / "json", dropped, tones=everything)
        if everything:
            for prefix, (package, folder, whose) in EMOJI_FILES.items():
                training += emoji_files(folders[package] / folder, prefix, words, dropped)
                about[prefix] = whose
                sets.append(prefix)
        training = without_copies(training, [pixels for _, pixels in held_out], dropped)
        emoji = EMOJI | EMOJI_FILES.keys()
        with atomic_folder(arguments.out) as out:
            parts: dict[str, list[tuple[Icon, np.ndarray]]] = {"emoji": []}
            for pair in training:
                part = "skin-tones" if pair[0].toned else "emoji" if pair[0].prefix in emoji else "icons"
                parts.setdefault(part, []).append(pair)
            for name, pairs in parts.items():
                write_training(out / name, pairs)
            write_held_out(out / HELD_OUT, held_out)
            (out / "CREDITS.md").write_text(credits(about, [*sets, HELD_OUT], packages), encoding="utf-8")
            kept = collections.Counter(icon.prefix for icon, _ in training)
            summary = {
                "packages": packages, "side": RENDERED_SIDE, "training": len(training), "held_out": len(held_out),
                "sets": dict(kept), "dropped": dict(sorted(dropped.items())),
            }  # fmt: skip
            write_json(out / "BUILD.json", summary)
    print(json.dumps(summary, indent=2))


if __name__ == "__main__":
    main()
