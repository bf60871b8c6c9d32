"""crawl/robots.py: robots.txt as RFC 9309 reads it, headers, and reservations."""

import random
import re
from urllib.robotparser import RobotFileParser

import pytest

from diptych.crawl.robots import MOST_BYTES, Rules, opt_out_of

TWICE = "User-agent: diptych\nDisallow: /a\nUser-agent: *\nDisallow: /c\nUser-agent: diptych\nDisallow: /b"


def allowed(robots: str, target: str, agent: str = "diptych") -> bool:
    return Rules.read_robots(robots, agent).allow(target)


@pytest.mark.parametrize(
    ("robots", "target", "may"),
    [
        ("", "/a", True),
        ("<html>no rules at all</html>", "/a", True),
        ("User-agent: *\nDisallow: /", "/a", False),
        ("User-agent: *\nDisallow:", "/a", True),
        ("user-AGENT : *\ndisALLOW : /a # not this", "/a", False),
        ("User-agent: *\r\nDisallow: /a\r\rDisallow: /b", "/b", False),
        ("\ufeffUser-agent: *\nDisallow: /a", "/a", False),
        ("Disallow: /a", "/a", True),  # spoken to nobody
        ("User-agent: other\nDisallow: /", "/a", True),
        ("User-agent: other\nUser-agent: diptych\nDisallow: /", "/a", False),
        ("User-agent: *\nUser-agent: diptych\nDisallow: /", "/a", False),
        ("User-agent: Diptych/1.0\nDisallow: /", "/a", False),
        ("User-agent: diptych-two\nDisallow: /", "/a", True),
        # who is named has no need of what is said to all
        ("User-agent: *\nDisallow: /\n\nUser-agent: diptych\nDisallow: /b", "/a", True),
        # groups of one name are one
        (TWICE, "/a", False),
        (TWICE, "/b", False),
        (TWICE, "/c", True),
        # the longest rule decides, of two alike the kinder
        ("User-agent: *\nDisallow: /\nAllow: /pictures", "/pictures/a", True),
        ("User-agent: *\nAllow: /pictures\nDisallow: /pictures/private", "/pictures/private/a", False),
        ("User-agent: *\nDisallow: /a\nAllow: /a", "/a", True),
        ("User-agent: *\nDisallow: /*.jpg$", "/a/b.jpg", False),
        ("User-agent: *\nDisallow: /*.jpg$", "/a/b.jpg?c", True),
        ("User-agent: *\nDisallow: /a*b*c", "/aXbYcZ", False),
        ("User-agent: *\nDisallow: /a*b*c", "/acb", True),
        ("User-agent: *\nDisallow: /a$", "/ab", True),
        ("User-agent: *\nDisallow: /*a*a$", "/a", True),
        ("User-agent: *\nDisallow: /ä", "/%C3%A4", False),
        ("User-agent: *\nDisallow: /%c3%a4", "/%C3%A4", False),
        ("User-agent: *\nDisallow: /%61", "/a", False),
        ("User-agent: *\nDisallow: /a%2Fb", "/a/b", True),
        ("User-agent: *\nDisallow: /a%2ab", "/a*b", False),
        ("User-agent: *\nDisallow: /a%24", "/a$b", False),
        ("User-agent: *\nDisallow: /a?b=", "/a?b=c", False),
        ("User-agent: *\nSitemap: /x\nCrawl-delay: 9\nDisallow: /a", "/a", False),
        # collections of pictures for models
        ("User-agent: img2dataset\nDisallow: /", "/a", False),
        ("User-agent: img2dataset\nDisallow: /\n\nUser-agent: *\nAllow: /a/b", "/a/b", False),
        ("User-agent: img2dataset\nDisallow: /b\n\nUser-agent: *\nDisallow: /a", "/a", False),
    ],
)
def test_what_robots_txt_allows(robots: str, target: str, may: bool):
    assert allowed(robots, target) == may


def test_plain_rules_are_read_as_the_library_of_python_reads_them():
    """Without stars, and with rules that do not contradict each other, it follows the same rules."""
    draw = random.Random(0)
    for _ in range(300):
        paths = draw.sample(["/a", "/b", "/a/b", "/c/", "/c/d.jpg", "/%7Ex"], 3)
        agents = draw.sample(["diptych", "other", "*"], 2)
        lines = [f"User-agent: {agents[0]}", *(f"Disallow: {path}" for path in paths[:2]), ""]
        lines += [f"User-agent: {agents[1]}", f"Disallow: {paths[2]}"]
        twin = RobotFileParser()
        twin.parse(lines)
        for target in ("/", "/a", "/ab", "/a/b/c", "/c", "/c/d.jpg", "/~x", "/d"):
            assert allowed("\n".join(lines), target) == twin.can_fetch("diptych", target), (lines, target)


def test_stars_are_matched_as_an_expression_matches_them():
    draw = random.Random(1)
    for _ in range(2000):
        pattern = "/" + "".join(draw.choice("ab*") for _ in range(draw.randint(1, 6))) + draw.choice(["", "$"])
        target = "/" + "".join(draw.choice("ab") for _ in range(draw.randint(0, 8)))
        twin = re.match("".join(".*" if c == "*" else re.escape(c) if c != "$" else r"\Z" for c in pattern), target)
        assert allowed(f"User-agent: *\nDisallow: {pattern}", target) == (twin is None), (pattern, target)


def test_no_file_of_the_size_that_is_read_makes_many_rules_of_few():
    """Agents by rules is what it could hold; only those that speak to us are kept."""
    half = MOST_BYTES // 2
    text = "User-agent: a\n" * (half // 14) + "User-agent: *\n" + "Disallow: /b\n" * (half // 13)
    rules = Rules.read_robots(text, "diptych")
    assert sum(map(len, rules.groups)) == half // 13
    stars = Rules.read_robots("User-agent: *\nDisallow: /" + "*a" * (half // 2) + "b", "diptych")
    assert stars.allow("/" + "a" * 4000)


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ([], None),
        ([("X-Robots-Tag", "noai")], "X-Robots-Tag: noai"),
        ([("x-robots-tag", " NoFollow , NoImageAI ")], "X-Robots-Tag: noimageai"),
        ([("X-Robots-Tag", "nofollow"), ("X-Robots-Tag", "noindex")], "X-Robots-Tag: noindex"),
        ([("X-Robots-Tag", "none")], "X-Robots-Tag: none"),
        ([("X-Robots-Tag", "all, nosnippet")], None),
        ([("X-Robots-Tag", "googlebot: noindex")], None),
        ([("X-Robots-Tag", "googlebot: nofollow, noindex")], None),
        ([("X-Robots-Tag", "diptych: noindex")], "X-Robots-Tag: noindex"),
        ([("X-Robots-Tag", "img2dataset: noindex")], "X-Robots-Tag: noindex"),
        ([("X-Robots-Tag", "unavailable_after: 25 Jun 2030 15:00:00 PST, noai")], "X-Robots-Tag: noai"),
        ([("X-Robots-Tag", "max-snippet: 5, noimageindex")], "X-Robots-Tag: noimageindex"),
        ([("tdm-reservation", " 1 ")], "tdm-reservation: 1"),
        ([("TDM-Reservation", "0")], None),
        ([("Content-Type", "noai")], None),
    ],
)
def test_by_which_header_an_answer_is_kept_from_models(headers, found):
    assert opt_out_of(headers, "diptych") == found


@pytest.mark.parametrize(
    ("text", "target", "may"),
    [
        ('[{"location": "/", "tdm-reservation": 1}]', "/a", False),
        ('[{"location": "/", "tdm-reservation": 0}]', "/a", True),
        ('[{"location": "/*.jpg$", "tdm-reservation": 1}]', "/a.jpg", False),
        ('[{"location": "/*.jpg$", "tdm-reservation": 1}]', "/a.png", True),
        ('[{"location": "/", "tdm-reservation": 1}, {"location": "/free/", "tdm-reservation": 0}]', "/free/a", True),
        ('{"location": "/", "tdm-reservation": 1}', "/a", True),
        ('[{"location": 5, "tdm-reservation": 1}, 7, {"location": "/", "tdm-reservation": [1]}]', "/a", True),
        ('[{"location": "/", "tdm-reservation": true}]', "/a", True),
        ("[" * 100_000, "/a", True),
        ("<html>", "/a", True),
    ],
)
def test_what_a_file_of_reservations_reserves(text: str, target: str, may: bool):
    assert Rules.read_reservations(text).allow(target) == may
