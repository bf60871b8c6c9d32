"""One training sample, and which of its parts are the picture and the captions.

A sample's parts come as columns of a table or as members of a shard, and a source names both alike: `image_column` and
`caption_columns`. Where it leaves the defaults, the names that are in common use are known.
"""

import collections
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from diptych.data.images import PICTURE_ENDINGS
from diptych.data.tar import TarIndex
from diptych.data.texts import decode_text, text_lines
from diptych.errors import DataError, TextError

UNTYPED_PICTURE = "picture"  # in place of an ending, where no file name tells what kind the picture is

IMAGE_COLUMN, CAPTION_COLUMNS = "image", ("caption",)  # the defaults of a source
# What others call them, in this order, where a source leaves the default and nothing has its name.
_IMAGE_NAMES = ("file_name", "filename", "filepath", "image_path", "image_name", "path", "file", "img")
_CAPTION_NAMES = ("captions", "text", "title", "comment", "description", "sentence", "sentences", "raw")
_SPLIT = re.compile(r"(?<![a-z])(train|val|valid|validation|dev|test)(?![a-z])")
_TEXTS = ("txt", "text")  # endings of captions as text


@dataclass(frozen=True)
class Sample:
    """One sample as it lies in a shard, or as other sources put it."""

    key: str
    parts: Mapping[str, bytes]  # content by ending, e.g. {"webp": ..., "txt": ...}

    @property
    def picture(self) -> bytes | None:
        """The first part that is a picture by its ending."""
        return next(
            (part for ending, part in self.parts.items() if ending in (*PICTURE_ENDINGS, UNTYPED_PICTURE)), None
        )


def captions_of(sample: Sample) -> list[str]:
    """The captions of a sample, one a line of its `txt` part, as `data.texts` reads lines.

    Raises:
        DataError: there is no caption, or it is not UTF-8; the message is the cause.
    """
    try:
        captions = text_lines(decode_text(sample.parts["txt"]))
    except KeyError:
        raise DataError("no caption") from None
    except TextError:
        raise DataError("caption not UTF-8") from None
    if not captions:
        raise DataError("no caption")
    return captions


def as_lines(captions: Iterable[str]) -> bytes:
    """Captions as a `txt` part: each on its line, breaks within one become spaces, each once."""
    lines = dict.fromkeys(" ".join(caption.split()) for caption in captions)
    text = "\n".join(line for line in lines if line)
    try:
        return text.encode("utf-8", "surrogateescape")  # bytes that were no UTF-8 are again what they were
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")  # half a character of a JSON: no UTF-8 either


def key_hash(key: str) -> int:
    """64 bits of a key, the same on any machine."""
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


@dataclass(frozen=True)
class Columns:
    """Names of a table's columns, or of a shard's members."""

    image: str  # the picture's path, from the table's folder; in Parquet also its bytes
    captions: tuple[str, ...]  # each gives a caption; in Parquet also a list of them
    key: str  # empty: rows with the same picture's path are one sample

    def wanted(self) -> list[str]:
        """All of them, each once."""
        return sorted({self.image, *self.captions, *filter(None, [self.key])})

    def among(self, names: Sequence[str]) -> "Columns":
        """These columns, defaults that are not among `names` replaced by a name in common use that is."""
        image, captions = self.image, self.captions
        if image == IMAGE_COLUMN and image not in names:
            image = next((name for name in _IMAGE_NAMES if name in names), image)
        if captions == CAPTION_COLUMNS and captions[0] not in names:
            captions = tuple(name for name in _CAPTION_NAMES if name in names)[:1] or captions
        return Columns(image, captions, self.key)


@dataclass(frozen=True)
class Members:
    """Which members of a shard's sample are its picture and its captions. A column NAME is the member `KEY.NAME`.

    Also `KEY.NAME.jpg` and the like for a picture, `KEY.NAME.txt` for a caption; "json:FIELD" is a field of `KEY.json`.
    By default the picture is the first member with an ending of pictures, else the column "image"; captions are those
    of `KEY.txt`, else of the column "caption", else of the field "caption" of `KEY.json`.
    """

    image: str = IMAGE_COLUMN
    captions: tuple[str, ...] = CAPTION_COLUMNS

    def __str__(self) -> str:
        return f"image_column={self.image!r} and caption_columns={list(self.captions)}"

    def picture(self, endings: Iterable[str]) -> str | None:
        """The ending of the member that is the picture."""
        there, name = list(endings), self.image.lower().removeprefix(".")
        if self.image == IMAGE_COLUMN:
            plain = next((ending for ending in there if ending in PICTURE_ENDINGS), None)
            if plain:
                return plain
        dotted = (ending for ending in there if ending.startswith(f"{name}.") and _last(ending) in PICTURE_ENDINGS)
        return name if name in there else next(dotted, None)

    def texts(self, endings: Iterable[str]) -> list[tuple[str, str]]:
        """Endings of the members that hold captions, each with the field of it, empty where it is text."""
        there = list(endings)
        if self.captions == CAPTION_COLUMNS:
            tries = [_text_member("txt", there), _text_member("caption", there), _text_member("json:caption", there)]
            return [found for found in tries if found][:1]
        return [found for name in self.captions if (found := _text_member(name, there))]

    def shaped(self, parts: Mapping[str, bytes]) -> Mapping[str, bytes]:
        """The parts of a sample as every source gives them: the picture under its ending, captions as lines of `txt`.

        Raises:
            DataError: captions cannot be read; the message is the cause.
        """
        picture, texts = self.picture(parts), self.texts(parts)
        if (picture and picture not in PICTURE_ENDINGS) or self.image != IMAGE_COLUMN:
            others = {ending: part for ending, part in parts.items() if ending not in (*PICTURE_ENDINGS, picture)}
            parts = ({UNTYPED_PICTURE: parts[picture]} if picture else {}) | others
        if texts != [("txt", "")]:
            captions = [caption for ending, name in texts for caption in _captions(parts[ending], name)]
            others = {ending: part for ending, part in parts.items() if ending != "txt"}
            parts = others | ({"txt": as_lines(captions)} if captions else {})
        return parts


@dataclass
class Ledger:
    """What became of the members of shards; nothing in them is passed over uncounted."""

    samples: int = 0
    paired: int = 0  # with a picture and a member for captions
    no_picture: int = 0
    no_caption: int = 0
    last_dot: int = 0  # samples whose key ends at the last dot of the name, as the first one would join pictures
    example: str = ""  # a key of these
    fields: int = 0  # samples whose captions are a field of a JSON
    endings: collections.Counter[str] = field(default_factory=collections.Counter)  # of all members of samples
    unread: collections.Counter[str] = field(default_factory=collections.Counter)  # endings that no rule reads
    outside: collections.Counter[str] = field(default_factory=collections.Counter)  # members of no sample, by reason

    def add(self, endings: Sequence[str], members: Members, count: int = 1) -> None:
        """Count samples by the endings of their members."""
        picture, texts = members.picture(endings), members.texts(endings)
        self.samples += count
        self.paired += count * bool(picture and texts)
        self.no_picture += count * (not picture)
        self.no_caption += count * (not texts)
        self.fields += count * any(name for _, name in texts)
        self.endings.update(dict.fromkeys(endings, count))
        read = {picture, *(ending for ending, _ in texts)}
        unread = (ending for ending in endings if ending not in read and not ending.startswith("teacher-"))
        self.unread.update(dict.fromkeys(unread, count))

    def add_shard(self, index: TarIndex, members: Members) -> None:
        """Count all members of a shard."""
        alike = collections.Counter(tuple(sample.parts) for sample in index.samples)
        for endings, count in alike.items():
            self.add(endings, members, count)
        if index.last_dot and index.samples:
            self.last_dot += len(index.samples)
            self.example = self.example or index.samples[0].key
        self.outside.update(index.outside)

    def sentences(self) -> list[str]:
        """What a user should know of it."""
        said = []
        if self.last_dot:
            said.append(
                f"keys end at the last dot of a name in {self.last_dot:,} of {self.samples:,} samples, e.g. "
                f"{self.example}: at the first one, as WebDataset has it, pictures would share a key"
            )
        if self.fields:
            said.append(f"the captions of {self.fields:,} samples are a field of their JSON")
        for count, what in ((self.no_picture, "picture"), (self.no_caption, "caption")):
            if count:
                said.append(f"{count:,} of {self.samples:,} samples have no {what}")
        if self.unread:
            said.append(f"members that no rule reads: {counted(self.unread)}")
        if self.outside:
            said.append(f"members of no sample: {', '.join(f'{k} {n:,}' for k, n in self.outside.most_common())}")
        return said


def splits_said(names: Iterable[str]) -> list[str]:
    """A sentence where files of several splits would be read together, by their paths below a source.

    >>> splits_said(["cc3m-train-0000.tar", "cc3m-validation-0000.tar"])
    ['files of the splits train and validation are read together; a pattern as path takes one, e.g. "PATH/*train*"']
    """
    found = sorted({match[1] for name in names for match in _SPLIT.finditer(name.lower())})
    if len(found) < 2:
        return []
    one = "train" if "train" in found else found[0]
    return [
        f'files of the splits {" and ".join(found)} are read together; a pattern as path takes one, e.g. "PATH/*{one}*"'
    ]


def counted(endings: Mapping[str, int]) -> str:
    """Endings with their numbers, the most frequent first."""
    ranked = collections.Counter(endings).most_common()
    few = ", ".join(f".{ending} {count:,}" for ending, count in ranked[:8])
    return few + (f" and {len(ranked) - 8} others" if len(ranked) > 8 else "")


def texts_of(value: Any) -> list[str]:
    """The captions that a value of a table or of a JSON holds: a text, a list of texts, or of lists that end in one.

    Raises:
        DataError: it holds something else; the message is the cause.
    """
    several = value if isinstance(value, list | tuple) else [] if value is None else [value]
    texts = [one[-1] if isinstance(one, list) and one else one for one in several if one is not None]
    found = [_field(one, "raw", "caption", "text") if isinstance(one, dict) else one for one in texts]
    captions = [one for one in found if isinstance(one, str)]
    if len(captions) < len(found):
        raise DataError("caption is no text")
    return captions


def _field(value: Mapping[str, Any], *names: str) -> Any:
    return next((value[name] for name in names if name in value), None)


def _captions(content: bytes, name: str) -> list[str]:
    try:
        text = decode_text(content)
    except TextError:
        raise DataError("caption not UTF-8") from None
    if not name:
        return text_lines(text)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise DataError("JSON unreadable") from None
    return texts_of(value.get(name)) if isinstance(value, dict) else []


def _text_member(column: str, endings: Sequence[str]) -> tuple[str, str] | None:
    """The ending that a column of captions is, and its field."""
    member, _, name = column.partition(":")
    member = member.lower().removeprefix(".")
    if name:
        return (member, name) if member in endings else None
    tries = (member, *(f"{member}.{ending}" for ending in _TEXTS))
    return next(((ending, "") for ending in tries if ending in endings), None)


def _last(ending: str) -> str:
    return ending.rpartition(".")[2]
