"""Many pictures become one row of features each."""

import io
import json
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import safetensors.numpy

from diptych.data.ahead import batched, decoded_ahead, or_error
from diptych.data.endings import kind_of
from diptych.data.images import PICTURE_ENDINGS
from diptych.data.inputs import as_pictures
from diptych.data.notebook import progress
from diptych.data.walk import walk_folder
from diptych.errors import ConfigError, DataError, ImageError
from diptych.files import atomic_file, natural_order
from diptych.weights.dual_encoder import DualEncoder


@dataclass(frozen=True, eq=False)
class Embedded:
    """Features of pictures, row by row with their keys, and what had to be left out."""

    keys: tuple[str, ...]  # N of them: the paths as they were given
    features: np.ndarray  # [N, D] float32, unit length
    skipped: dict[str, str] = field(default_factory=dict)  # key to the sentence that tells why

    def save(self, path: Path) -> None:
        """Write one file, whole or not at all.

        Args:
            path: `.safetensors` with a tensor "features" and keys and skipped as JSON in its metadata, or `.npz` with
                arrays "features", "keys" and "skipped", which is [K, 2]: key and reason.

        Raises:
            ConfigError: the name ends otherwise.
            DataError: the file cannot be written.
        """
        if path.suffix not in (".safetensors", ".npz"):
            raise ConfigError(f"features are saved as .safetensors or .npz. Got {path}.")
        with atomic_file(path) as aside:
            # Through bytes: on a full disk the file writer of safetensors says nothing, and numpy's below 2 leaves
            # its archive open.
            aside.write_bytes(self._npz() if path.suffix == ".npz" else self._safetensors())

    def _npz(self) -> bytes:
        buffer = io.BytesIO()
        skipped = np.array(list(self.skipped.items()), dtype=np.str_).reshape(-1, 2)
        np.savez(buffer, features=self.features, keys=np.array(self.keys, np.str_), skipped=skipped)
        return buffer.getvalue()

    def _safetensors(self) -> bytes:
        metadata = {"keys": json.dumps(self.keys), "skipped": json.dumps(self.skipped)}
        return safetensors.numpy.save({"features": np.ascontiguousarray(self.features)}, metadata=metadata)


def embed_images(
    bundle: DualEncoder,
    images: Sequence[Path],
    *,
    batch_size: int = 64,
    on_progress: Callable[[int, int], None] | None = None,
) -> Embedded:
    """Encode pictures; one that cannot be read is left out and named. Pictures are decoded while the model works.

    Args:
        bundle: the model.
        images: N paths, as `find_images` gives them.
        batch_size: pictures a forward pass.
        on_progress: called after each batch with how many pictures are done, and N; by default a notebook shows a bar.

    Raises:
        ConfigError: batch_size is below 1.
        DataError: it is no list, but one path.
    """
    images = as_pictures(images)
    keys: list[str] = []
    skipped: dict[str, str] = {}

    def readable(pictures: Iterator[np.ndarray | ImageError]) -> Iterator[np.ndarray]:
        done = 0
        for batch in batched(zip(images, pictures, strict=True), batch_size):
            good = []
            for path, pixels in batch:
                if isinstance(pixels, ImageError):
                    skipped[str(path)] = str(pixels)
                else:
                    keys.append(str(path))
                    good.append(pixels)
            if good:
                yield np.stack(good)
            done += len(batch)
            (on_progress or advance)(done, len(images))

    features = [np.empty((0, bundle.embed_dim), np.float32)]
    pixels = or_error(bundle.preprocess.pixels)
    with progress("embedding") as advance, decoded_ahead(pixels, images, batch_size) as pictures:
        features += bundle.encode_each(readable(pictures))
    return Embedded(tuple(keys), np.concatenate(features), skipped)


def encode_fast(bundle: DualEncoder, pixels: Sequence[np.ndarray]) -> np.ndarray:
    """Encode pictures as the engine does soonest; see `DualEncoder.encode_fast`.

    Args:
        bundle: the model.
        pixels: B pictures, [S, S, 3] uint8; may be none.

    Returns:
        [B, D] float32, unit length.
    """
    return bundle.encode_fast(np.stack(pixels)) if pixels else np.empty((0, bundle.embed_dim), np.float32)


def find_images(paths: Sequence[Path], *, on_note: Callable[[str], None] | None = None) -> list[Path]:
    """Pictures in folders and their subfolders, in natural order, each once.

    Args:
        paths: files, taken as they are, and folders, of which the files with a picture's ending are taken;
            `walk_folder` says what is left out.
        on_note: is called with a sentence for each entry that could not be looked at, and for each kind of picture
            that has no reader here.

    Raises:
        DataError: a path does not exist or cannot be listed, or no picture was found.
    """
    found: dict[Path, None] = {}
    for path in paths:
        try:
            is_folder = stat.S_ISDIR(path.stat().st_mode)
        except (OSError, ValueError) as error:
            what = f"{path} must be a picture or a folder of pictures, and "
            if isinstance(error, FileNotFoundError) and not path.is_symlink():
                raise DataError(f"{what}does not exist.") from None
            sentence = f"{what}cannot be looked at: {getattr(error, 'strerror', None) or error}."
            if len(paths) == 1 or on_note is None:
                raise DataError(sentence) from None
            on_note(sentence)  # as a shell's pattern may well name a link that leads nowhere
            continue
        found |= dict.fromkeys(_inside(path, on_note) if is_folder else [path])
    if not found:
        names = ", ".join(map(str, paths)) or "no path at all"
        raise DataError(f"no picture was found in {names}. Endings that count: {', '.join(PICTURE_ENDINGS)}.")
    return list(found)


def _inside(folder: Path, on_note: Callable[[str], None] | None) -> list[Path]:
    walk = walk_folder(folder)
    for sentence in walk.notes() if on_note else ():
        assert on_note
        on_note(sentence)
    names = [name for name in walk.files if kind_of(name).what == "picture"]
    return [folder / name for name in sorted(names, key=lambda name: [natural_order(part) for part in name.split("/")])]
