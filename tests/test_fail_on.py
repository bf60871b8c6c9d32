import pytest

from audits import an_audit
from diptych.audit.fail_on import reached, read_limit
from diptych.errors import ConfigError


def test_a_limit_is_of_the_numbers_whose_words_it_has():
    audit = an_audit(crime=6)
    assert reached(audit, [read_limit("class-design: crime, 0-19 > 50%")]) == [
        "class-design: crime, 0-19 > 50%: people, val, audit, crime, 0-19 is 0.6."
    ]
    assert reached(audit, [read_limit("class-design: crime, 20-59 > 50%")]) == []
    assert len(reached(audit, [read_limit("class-design > .05")])) == 2
    assert reached(audit, [read_limit("class-design:0-19 < 0.6")]) == []
    assert len(reached(audit, [read_limit("class-design:0-19 <= 0.6")])) == 1


def test_what_was_not_measured_has_not_passed():
    with pytest.raises(ConfigError, match="Chapters: class-design"):
        reached(an_audit(), [read_limit("surveillance > 1%")])
    with pytest.raises(ConfigError, match="Numbers of class-design: crime, 0-19, share; crime, 20-59, share"):
        reached(an_audit(), [read_limit("class-design: 60+ > 1%")])


@pytest.mark.parametrize("text", ["", "class-design", "class-design > much", "> 5%", "a: b = 5", "a > 1.2.3", "a > -1"])
def test_what_is_no_limit_is_refused(text: str):
    with pytest.raises(ConfigError, match="must be CHAPTER"):
        read_limit(text)
