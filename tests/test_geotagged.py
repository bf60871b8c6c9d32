import pytest

from diptych.errors import DataError
from diptych.sets.geotagged import read_places
from toys import png


def test_pictures_to_be_found_come_first(tmp_path):
    (tmp_path / "places.csv").write_text("image,latitude,longitude\nq.png,10.5,-20\n")
    (tmp_path / "reference.csv").write_text("image,latitude,longitude\nr.png,1,2\nq.png,3,4\n")
    (tmp_path / "q.png").write_bytes(png("red"))
    pictures = read_places(tmp_path)
    assert (len(pictures), pictures.queries) == (3, 1)
    assert pictures.keys == ("places/q.png", "reference/r.png", "reference/q.png")
    assert pictures.places.tolist() == [[10.5, -20], [1, 2], [3, 4]]
    assert pictures.open(0).size == (4, 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,latitude\nq.png,1\n", r"columns image, latitude and longitude. Not so: 'longitude'"),
        ("image,latitude,longitude\nq.png,91,0\n", r"in degrees. Not so for q.png"),
        ("image,latitude,longitude\n", r"It is empty"),
    ],
)
def test_a_wrong_list_is_named(tmp_path, text, message):
    (tmp_path / "places.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_places(tmp_path)
    (tmp_path / "places.csv").unlink()
    with pytest.raises(DataError, match=r"places.csv must list pictures"):
        read_places(tmp_path)
