import pytest

from diptych.serve.tickets import Tickets


def test_a_ticket_opens_its_own_picture_until_the_server_stops():
    tickets = Tickets()
    path = tickets.added("/library/abc/thumbnail?time=3", "abc")
    assert path.startswith("/library/abc/thumbnail?time=3&ticket=")
    query = path.partition("?")[2]
    for place in ("thumbnail", "picture", "original", "zip"):
        assert tickets.opens(f"/library/abc/{place}", query)
    assert not Tickets().opens("/library/abc/thumbnail", query)


@pytest.mark.parametrize("path", ["/library/abd/picture", "/library/abc/reveal", "/library/abc/why", "/library", "/"])
def test_it_opens_nothing_else(path: str):
    tickets = Tickets()
    assert not tickets.opens(path, f"ticket={tickets.of('abc')}")


@pytest.mark.parametrize("query", ["", "ticket=", "ticket=%ff", "ticket=" + "x" * 24])
def test_without_one_nothing_opens(query: str):
    assert not Tickets().opens("/library/abc/picture", query)
