import pytest
from pydantic import ValidationError

from diptych.serve.browse import ViewFilters
from diptych.serve.library_messages import ViewRequest


def test_a_request_becomes_what_a_library_takes():
    asked = ViewRequest(folder="a", after="2021-7", sort="oldest", area=(1, 2, 3, 4), camera="").asked()
    expected = ViewFilters(folder="a", after="2021-07", oldest_first=True, by_date=True, area=(1, 2, 3, 4), camera="")
    assert asked == expected
    assert ViewRequest().asked() == ViewFilters()


@pytest.mark.parametrize(
    "option", [{"kind": "sound"}, {"count": 501}, {"part": [0, 0, 2, 1]}, {"start": -1}, {"sort": "best"}, {"no": 1}]
)
def test_what_makes_no_sense_is_refused(option: dict):
    with pytest.raises(ValidationError):
        ViewRequest.model_validate(option)
