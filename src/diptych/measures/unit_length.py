"""Vectors of unit length."""

import numpy as np

_SMALLEST = 1e-12  # a shorter vector is divided by this, so that one of zeros stays one


def unit_length(vectors: np.ndarray) -> np.ndarray:
    """[..., D] of any type of numbers to the same directions, each of length 1, float32."""
    vectors = vectors.astype(np.float32, copy=False)  # squares are too much for float16
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), np.float32(_SMALLEST))
