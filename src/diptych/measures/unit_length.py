"""Vectors of unit length."""

import numpy as np

_SMALLEST = 1e-12  # a shorter vector is divided by this, so that one of zeros stays one


def unit_length(vectors: np.ndarray) -> np.ndarray:
    """[..., D] to the same directions, each of length 1, float32."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return (vectors / np.maximum(lengths, _SMALLEST)).astype(np.float32, copy=False)
