"""The files of a model's folder besides its tensors: their names, the JSON ones, and our seal in one of them."""

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diptych.config import from_dict, to_dict
from diptych.errors import ConfigError, WeightsError
from diptych.files import sha256, write_text
from diptych.weights.not_weights import check_content

if TYPE_CHECKING:
    from diptych.data.images import Preprocess

FORMAT_VERSION = 1
CONFIG, WEIGHTS, PREPROCESS, TOKENIZER = (
    "config.json",
    "model.safetensors",
    "preprocessor_config.json",
    "tokenizer.json",
)
OPEN_CLIP_CONFIG, OPEN_CLIP_WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
SCALE = ":scale"  # ends the name of the factors of a matrix in 8 bits; see `diptych.weights.eight_bit`
TABLE_GROUP = 32  # columns of a table of 4 bits that share a factor
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")  # of batch norm: buffers, not parameters
NOT_LEARNED = (*STATISTICS, "position_ids", SCALE)  # ends of names


@dataclass(frozen=True, kw_only=True)
class About:
    """Where a model comes from; every field is for people to read and may be empty."""

    source: str = ""  # who made the weights, with an address
    licence: str = ""  # of the weights
    data: str = ""  # what it was trained on, with its licence
    recipe: str = ""  # the whole recipe as TOML, or where it is
    created: str = ""  # a date
    sha256: str = ""  # of the file of weights, when it came from a hub


@dataclass(frozen=True, kw_only=True)
class Golden:
    """What a bundle made of the golden inputs when it was saved; features are rounded to 5 digits."""

    tokens: tuple[tuple[int, ...], ...]  # of the golden texts, up to the end token
    image_features: tuple[tuple[float, ...], ...]  # [1, D], of the golden picture
    text_features: tuple[tuple[float, ...], ...]  # [3, D]


@dataclass(frozen=True, kw_only=True)
class Seal:
    """Our part of `config.json`, under "diptych", or of `open_clip_config.json` in a folder that has that one alone."""

    version: int = FORMAT_VERSION
    about: About
    sha256: dict[str, str]  # see `digests`
    golden: Golden
    own: str = ""  # SHA-256 of the seal without it; empty in the first bundles

    def sealed(self) -> "Seal":
        """The same with its own digest."""
        return dataclasses.replace(self, own=self._digest())

    @property
    def is_whole(self) -> bool:
        """Whether it is as it was written, as far as it can tell."""
        return self.own in ("", self._digest())

    def _digest(self) -> str:
        return _canonical(to_dict(dataclasses.replace(self, own="")))


def read_seal(path: Path, data: Mapping[str, Any]) -> Seal | None:
    """Our seal in the content of a config file; None where another library wrote it.

    Args:
        path: of the file, for messages.
        data: its content.

    Raises:
        WeightsError: the seal is damaged or of a later format.
    """
    plain = data.get("diptych")
    version = plain.get("version") if isinstance(plain, dict) else None
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise WeightsError(f"{path} has format {version}; this diptych reads up to {FORMAT_VERSION}. Update diptych.")
    try:
        return None if plain is None else from_dict(_Checked, {"diptych": plain}).diptych
    except ConfigError as error:
        raise WeightsError(f"{path}: {error}") from error


def write_config(path: Path, config: Mapping[str, Any], seal: Seal) -> None:
    """Write a config file: the model as plain data, and our seal.

    Raises:
        DataError: the file cannot be written.
    """
    text = json.dumps({**config, "diptych": to_dict(seal)}, indent=2, ensure_ascii=False, allow_nan=False)
    compact = re.sub(
        r"\[\n([-\d\s.,e]+)\]", lambda match: f"[{' '.join(match[1].split())}]", text
    )  # one line a feature
    write_text(path, compact + "\n")


def count_parameters(shapes: Mapping[str, Sequence[int]]) -> int:
    """Parameters by the shapes of tensors of any library's names: what is learned, not what is counted or constant."""

    def count(name: str, shape: Sequence[int]) -> int:
        has_four_bits = len(shapes.get(name + SCALE, ())) == 2  # its factors are a matrix, and two numbers a byte
        return math.prod(shape) * (2 if has_four_bits else 1)

    return sum(count(name, shape) for name, shape in shapes.items() if not name.endswith(NOT_LEARNED))


def read_preprocess(folder: Path) -> "Preprocess | None":
    """The picture recipe of a folder: `preprocessor_config.json`, else a part of `processor_config.json`; else None.

    Raises:
        WeightsError: it asks for what `Preprocess` does not do.
    """
    from diptych.data.images import Preprocess  # here: names of models are told without NumPy

    newer = folder / "processor_config.json"  # where transformers puts it since version 5
    is_newer = not (folder / PREPROCESS).exists()
    if is_newer and not newer.exists():
        return None
    data = read_json(newer).get("image_processor") or {} if is_newer else read_json(folder / PREPROCESS)
    try:
        return Preprocess.from_hf(data)
    except (TypeError, ValueError, AttributeError, ArithmeticError) as error:
        name = newer.name if is_newer else PREPROCESS
        raise WeightsError(
            f"{folder / name} must hold a picture recipe, numbers where it needs them ({error})."
        ) from error


def digests(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """SHA-256 of files of a folder, empty for one that is missing.

    That of a JSON file is of its content, however it is laid out; that of a config file without our seal, so that it
    can stand in the seal, and without the version of transformers, which writes it anew.
    """
    return {name: _digest(folder / name) for name in names}


def changed_files(folder: Path, sealed: Mapping[str, str]) -> list[str]:
    """Those of the files that a seal names which are others now, missing ones included."""
    now = digests(folder, sealed)
    others = [name for name, one in sealed.items() if one != now[name]]
    # The first bundles have the digest of the picture recipe's bytes.
    return [name for name in others if not now[name] or sealed[name] != sha256(folder / name)]


@dataclass(frozen=True, kw_only=True)
class _Checked:
    diptych: Seal


def _digest(path: Path) -> str:
    if not path.is_file():
        return ""
    if path.suffix != ".json" or path.name == TOKENIZER:
        return sha256(path)
    left_out = ("diptych", "transformers_version") if path.name in (CONFIG, OPEN_CLIP_CONFIG) else ()
    return _canonical({key: value for key, value in read_json(path).items() if key not in left_out})


def _canonical(data: Mapping[str, Any]) -> str:
    """SHA-256 of plain data, however it is laid out."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file of a model's folder.

    Raises:
        WeightsError: the file is missing or damaged.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WeightsError(f"{path.parent} must hold {path.name}, and has none. Is it a bundle's folder?") from None
    except (OSError, ValueError, RecursionError) as error:
        check_content(path)
        raise WeightsError(f"{path} must be JSON: {error}. Copy or download it again.") from error
    if not isinstance(data, dict):
        raise WeightsError(f"{path} must hold a JSON object. Got {type(data).__name__}: is it another file?")
    return data
