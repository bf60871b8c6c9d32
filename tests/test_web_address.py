"""crawl/web_address.py: one reading of whatever stands in a list or a redirect."""

import pytest

from diptych.crawl.fetch_causes import FetchError
from diptych.crawl.web_address import WebAddress


@pytest.mark.parametrize(
    ("url", "read"),
    [
        ("http://a.org", "http://a.org/"),
        ("HTTP://A.ORG:80/b#c", "http://a.org/b"),
        ("https://a.org.:443/b", "https://a.org/b"),
        ("https://a.org:8443/b", "https://a.org:8443/b"),
        ("http://a.org:443/b", "http://a.org:443/b"),
        ("//cdn.a.org/x.jpg", "https://cdn.a.org/x.jpg"),
        (" \thttp://a.org/b\nc.jpg\n", "http://a.org/bc.jpg"),
        ("http://a.org/b c.jpg?d=e f", "http://a.org/b%20c.jpg?d=e%20f"),
        ("http://a.org/ä?ö=%C3%BC", "http://a.org/%C3%A4?%C3%B6=%C3%BC"),
        ("http://a.org?x=1", "http://a.org/?x=1"),
        ("http://a.org/%7Ea%2fb/./../c//d", "http://a.org/%7Ea%2fb/./../c//d"),  # signatures hang on every character
        ("http://a.org/100%.jpg", "http://a.org/100%.jpg"),
        ("http://a.org\\@b.org/", "bad address"),
        ("http://bücher.example/", "http://xn--bcher-kva.example/"),
        ("http://例え.テスト/", "http://xn--r8jz45g.xn--zckzah/"),
        ("http://[::1]:8000/a", "http://[::1]:8000/a"),
        ("http://a_b.org/", "http://a_b.org/"),
        ("http://a.org:99999/", "bad address"),
        ("http://a.org:port/", "bad address"),
        ("http://[::1/", "bad address"),
        ("http://user@a.org/", "bad address"),
        ("http:///a.jpg", "bad address"),
        ("http://./a.jpg", "bad address"),
        ("http://a b.org/", "bad address"),
        ("http://a.org%2f.b.org/", "bad address"),
        ("a.org/b.jpg", "bad address"),
        ("data:image/png;base64,AAAA", "bad address"),
        ("file:///etc/passwd", "bad address"),
        ("javascript:alert(1)", "bad address"),
        ("http://a.org/" + "x" * 9000, "bad address"),
        ("", "bad address"),
    ],
)
def test_how_an_address_is_read(url: str, read: str):
    if read != "bad address":
        assert WebAddress.read(url).url == read
        assert WebAddress.read(read).url == read
        return
    with pytest.raises(FetchError) as raised:
        WebAddress.read(url)
    assert raised.value.cause == read


@pytest.mark.parametrize(
    ("location", "read"),
    [
        ("/c?d", "http://a.org:8080/c?d"),
        ("c", "http://a.org:8080/b/c"),
        ("//b.org/c", "http://b.org/c"),
        ("https://b.org", "https://b.org/"),
        ("/\udcc3\udca4", "http://a.org:8080/%C3%A4"),  # bytes of a header, as aiohttp gives them
        ("file:///etc/passwd", "redirect"),
        ("http://user:word@b.org/", "redirect"),
        ("http://[x/", "redirect"),
    ],
)
def test_where_a_redirect_leads(location: str, read: str):
    base = WebAddress.read("http://a.org:8080/b/x")
    if read != "redirect":
        assert WebAddress.read(location, base).url == read
        return
    with pytest.raises(FetchError) as raised:
        WebAddress.read(location, base)
    assert raised.value.cause == read


def test_a_site_is_scheme_host_and_port():
    one = WebAddress.read("http://a.org:8080/b?c")
    assert one.site == "http://a.org:8080"
    assert one.at("/robots.txt").url == "http://a.org:8080/robots.txt"
