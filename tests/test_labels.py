import numpy as np
import pytest

from diptych.classify import ZeroShotClassifier
from diptych.serve.labels import KnownTexts, probabilities
from serving import COLOURS, picture_file, tiny_bundle


def test_texts_that_were_encoded_before_give_the_same_shares():
    bundle = tiny_bundle()
    labels, templates = ["a red kite", "a blue boat"], ["{}", "see {}"]
    texts = [template.format(label) for label in labels for template in templates]
    features = dict(zip(texts, bundle.encode_texts(texts), strict=True))
    picture = bundle.encode_images([picture_file(COLOURS["red"])])  # pyright: ignore[reportArgumentType]
    plain = ZeroShotClassifier(bundle, labels, templates).probabilities(picture)[0]
    known = KnownTexts(bundle, features, [])
    assert probabilities(known, labels, templates, picture) == pytest.approx(np.array(plain).tolist(), abs=1e-6)
