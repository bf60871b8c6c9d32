"""Pictures that keep their shape: the largest grid of patches that fits, and its patches as rows with their places.

Source: NaFlex of SigLIP 2, arXiv:2502.14786, with the released code; NaViT, arXiv:2307.06304. Letters: N, the sequence
length; p, the side of a patch in pixels.
"""

import numpy as np

MOST_PATCHES_A_SIDE = 255  # a place is a byte; only pictures more than 60 times as long as high come near
PLACE = 2  # numbers of a row before its pixels: row and column of the patch, from 1; a row of zeros is padding


def largest_grid(width: int, height: int, length: int) -> tuple[int, int]:
    """Rows and columns of patches of the largest scale at which a picture, rounded up to whole patches, has room.

    Args:
        width: of the picture, in any unit.
        height: likewise.
        length: N, patches at most.
    """
    # The scale, times width * height, at which it fills so many rows or the columns that these leave room for.
    filled = max(
        min(rows * width, min(length // rows, MOST_PATCHES_A_SIDE) * height)
        for rows in range(1, min(length, MOST_PATCHES_A_SIDE) + 1)
    )
    return -(-filled // width), -(-filled // height)


def to_patch_rows(pixels: np.ndarray, patch_size: int, length: int) -> np.ndarray:
    """Pixels as one row a patch, line by line, padded to a sequence.

    Args:
        pixels: [rows * p, columns * p, 3] uint8.
        patch_size: p.
        length: N, at least rows * columns.

    Returns:
        [N, 2 + p * p * 3] uint8.
    """
    rows, columns = (side // patch_size for side in pixels.shape[:2])
    patches = pixels.reshape(rows, patch_size, columns, patch_size, 3).swapaxes(1, 2).reshape(rows * columns, -1)
    sequence = np.zeros((length, PLACE + patches.shape[1]), np.uint8)
    places = np.indices((rows, columns)).reshape(PLACE, -1).T + 1  # [rows * columns, 2]
    sequence[: len(patches), :PLACE], sequence[: len(patches), PLACE:] = places, patches
    return sequence
