"""What a model makes of a picture and some texts that everybody has, so that a changed one is noticed."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from diptych.data.tokenizer import Tokenizer
from diptych.data.translations import TRANSLATIONS
from diptych.errors import WeightsError
from diptych.model.vocabulary import text_lengths
from diptych.weights.dual_encoder import DualEncoder
from diptych.weights.folder import OPEN_CLIP_WEIGHTS, TOKENIZER, WEIGHTS, Golden, Seal, changed_files

# Distance between unit vectors. Another processor moves features by about 1e-5, and rounding in the file by 1e-4;
# GELU for QuickGELU moved those of an untrained 2-layer model by 3e-3, red for blue by 3e-3 to 0.3.
GOLDEN_TOLERANCE = 2e-3


def golden_of(bundle: DualEncoder) -> Golden:
    """What a bundle makes of the golden inputs.

    Raises:
        WeightsError: the features are not finite.
    """
    texts = bundle.golden_texts
    tokens = bundle.tokenizer.encode(texts, truncate=True)
    image_features = bundle.encode_images([golden_picture()])
    text_features = bundle.encode_texts(texts, truncate=True)
    return Golden(
        tokens=golden_tokens(tokens, bundle.tokenizer),
        image_features=_rounded(image_features),
        text_features=_rounded(text_features),
    )


def golden_tokens(tokens: np.ndarray, tokenizer: Tokenizer) -> tuple[tuple[int, ...], ...]:
    """[B, L] tokens as they are kept: each text up to its end token."""
    lengths = text_lengths(tokens, tokenizer.end_token_id, tokenizer.pad_token_id)
    return tuple(tuple(row[:length]) for row, length in zip(tokens.tolist(), lengths, strict=True))


def check_seal(bundle: DualEncoder, folder: Path, seal: Seal) -> None:
    """Refuse a bundle whose files are others than were saved, or that encodes otherwise.

    Args:
        bundle: as it was read.
        folder: from where.
        seal: that stood there.

    Raises:
        WeightsError: a file differs, the seal itself does, or the golden features come out otherwise. A file that is
            for other libraries alone may be missing.
    """
    changed = changed_files(folder, seal.sha256)
    for name in (WEIGHTS, OPEN_CLIP_WEIGHTS, TOKENIZER, TRANSLATIONS):  # the golden inputs reach but a part of these
        if name in changed:
            raise _other_file(folder / name)
    then, now = seal.golden, golden_of(bundle)
    faults = [] if now.tokens == then.tokens else ["tokens differ"]
    for name in ("image_features", "text_features"):
        apart = distance(getattr(then, name), getattr(now, name))
        if apart > GOLDEN_TOLERANCE:
            faults.append(f"{name} are {apart:.2g} off")
    if faults:
        cause = (
            f"{' and '.join(changed)} was changed since. Restore it."
            if changed
            else "No file was changed since: another version of diptych, torch or tokenizers computes otherwise."
        )
        raise WeightsError(f"{folder} must encode as it did when it was saved, and {', '.join(faults)}. {cause}")
    if not seal.own:
        return  # of the first bundles, whose golden features alone judge the smaller files
    if damaged := [name for name in changed if (folder / name).exists()]:
        raise _other_file(folder / damaged[0])
    if not seal.is_whole:
        raise WeightsError(f"{folder} must have the seal that it was saved with, and it was changed. Copy it again.")


def _other_file(path: Path) -> WeightsError:
    return WeightsError(
        f"{path} must be the file that was saved with the bundle, and its SHA-256 differs. Copy or download it again; "
        'if it was changed on purpose, remove "diptych" from the config.'
    )


def golden_picture() -> Image.Image:
    """A picture by formula, 120 x 80: red grows to the right, green downwards, blue is a chessboard."""
    y, x = np.mgrid[:80, :120]
    return Image.fromarray(np.stack([x * 2, y * 3, (x // 8 + y // 8) % 2 * 255], axis=-1).astype(np.uint8))


def _rounded(features: np.ndarray) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(round(value, 5) for value in row) for row in features.tolist())


def distance(then: Sequence[Sequence[float]] | np.ndarray, now: Sequence[Sequence[float]] | np.ndarray) -> float:
    """How far the row that moved furthest moved; infinite where the shapes differ."""
    if np.shape(then) != np.shape(now):
        return math.inf
    return float(np.linalg.norm(np.subtract(then, now), axis=1).max())
