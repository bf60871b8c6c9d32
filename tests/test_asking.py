import asyncio
from pathlib import Path

import numpy as np
import pytest

from browsing import SHOTS, browsing, jpeg_of
from diptych.errors import ConfigError
from diptych.measures.unit_length import unit_length
from diptych.serve import asking as asking_module
from diptych.serve.asking import Asking, Sought
from diptych.serve.refusals import RefusedError
from diptych.serve.service import Service
from serving import data_url, tiny_bundle


def test_a_question_is_the_weighted_sum_of_its_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    bundle = tiny_bundle()
    with browsing(tmp_path) as browser:

        async def work() -> None:
            service = Service(bundle, name="tiny", gallery=browser.gallery)
            asking = Asking(service)
            wanted = await asking.wanted(browser, Sought(query='"a red kite" - 0.5 * "a boat" + 2 * c.jpg'))
            kite, boat = bundle.encode_texts(["a red kite", "a boat"])
            number = browser.named("c.jpg")
            assert number is not None
            picture = browser.library.features_of(number)
            np.testing.assert_allclose(wanted.features, unit_length(kite - 0.5 * boat + 2 * picture), atol=1e-5)
            # A picture that was sent is kept as its features, up to a number.
            monkeypatch.setattr(asking_module, "_SOUGHT", 2)
            tokens = [await asking.keep(data_url(jpeg_of(shot))) for shot in SHOTS[:3]]
            with pytest.raises(RefusedError, match="no longer known here"):
                await asking.wanted(browser, Sought(picture=tokens[0]))
            sent = await asking.wanted(browser, Sought(picture=tokens[2], query="a boat"))
            [of_sent] = bundle.encode_images([jpeg_of(SHOTS[2])])
            np.testing.assert_allclose(sent.features, unit_length(of_sent + boat), atol=1e-3)
            for query in ('- "a boat"', '"a', "x" * 20_000):
                with pytest.raises(ConfigError):
                    await asking.wanted(browser, Sought(query=query))
            assert await asking.unknown_words("") == []
            service.close()

        asyncio.run(work())


def test_nothing_is_no_question():
    assert not Sought(query="  ")
    assert Sought(query="a")
    assert Sought(like="x")
