import io
import os
from pathlib import Path

import numpy as np
from PIL import Image

from diptych.data.classified import ClassifiedPictures

SHARES = np.array([[0.1, 0.7, 0.2], [0.5, 0.5, 0.0]])
LABELS = ("a <cat>", "a dog", "猫")


def test_labels_come_best_first_and_a_tie_keeps_their_order():
    found = ClassifiedPictures.of(["a.png", "b.png"], LABELS, SHARES)
    assert [one.labels for one in found] == [("a dog", "猫", "a <cat>"), ("a <cat>", "a dog", "猫")]
    assert found[0].probabilities == (0.7, 0.2, 0.1)
    assert [(one.label, one.probability) for one in found] == [("a dog", 0.7), ("a <cat>", 0.5)]
    assert len(found[1:]) == 1
    assert found[1:][0] is found[1]


def test_a_notebook_shows_every_kind_of_picture_with_bars(tmp_path):
    red = Image.new("RGB", (400, 200), "red")
    file = io.BytesIO()
    red.save(file, "PNG")
    odd = tmp_path / os.fsdecode(b"<i>\xff\n.png")
    odd.write_bytes(file.getvalue())
    pictures = [odd, file.getvalue(), red, np.asarray(red), tmp_path / "gone.png"]
    page = ClassifiedPictures.of(pictures, LABELS, np.tile(SHARES[:1], (5, 1)))._repr_html_()
    page.encode()
    assert page.count("data:image/jpeg;base64,") == page.count("src=") == 4
    assert page.count("no picture") == 1
    assert "&lt;i&gt;\\xff" in page
    assert "<i>" not in page
    assert page.count("70.0% a dog") == 5
    assert page.index("70.0% a dog") < page.index("20.0% 猫") < page.index("10.0% a &lt;cat&gt;")
    assert len(page) < 30_000


def test_a_long_answer_is_cut_and_says_so():
    found = ClassifiedPictures.of([Path("none.png")] * 100, LABELS, np.tile(SHARES[:1], (100, 1)))
    page = found._repr_html_()
    assert page.count("<figure") == 60
    assert "40 more are not shown." in page
    assert found[0]._repr_html_().count("<figure") == 1
