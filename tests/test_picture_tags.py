"""crawl/picture_tags.py: the picture tags of a page."""

import collections
import html
import html.parser
import random
from urllib.parse import urljoin

import pytest

pytest.importorskip("selectolax")

from diptych.crawl.collected import Collected
from diptych.crawl.picture_tags import OPT_OUTS, PageFacts, PageRules, is_slow, largest, opt_out_of, read_page
from diptych.rows.stage import Judged

PAGE = "https://site.example/blog/page.html?x=1#top"
HERE = "https://site.example/blog/"


def read(page: str | bytes, *headers: tuple[str, str], **rules) -> Judged:
    collected = Collected(0)
    content = page.encode("utf-8", "surrogateescape") if isinstance(page, str) else page
    read_page(content, PAGE, headers, collected, PageRules(**rules))
    return collected.judged()


def causes(judged: Judged) -> dict[str, int]:
    return dict(collections.Counter(judged.dropped["cause"].to_pylist()))


def pairs(judged: Judged) -> list[tuple[str, str]]:
    return list(zip(judged.kept["url"].to_pylist(), judged.kept["text"].to_pylist(), strict=True))


class PlainTags(html.parser.HTMLParser):
    """The twin: one attribute, one address, by the standard library."""

    def __init__(self) -> None:
        super().__init__()
        self.base, self.kept, self.dropped = PAGE, [], collections.Counter()

    def handle_starttag(self, tag, attributes):
        said = dict(attributes)
        if tag == "base":
            self.base = urljoin(PAGE, said["href"])
        if tag == "img":
            address = (said.get("src") or "").strip()
            url = urljoin(self.base, address).partition("#")[0]
            text = " ".join((said.get("alt") or "").split())
            if not address:
                self.dropped["no address"] += 1
            elif url.startswith("data:"):
                self.dropped["data URL"] += 1
            elif not url.startswith(("http:", "https:")):
                self.dropped["not http"] += 1
            elif "alt" not in said:
                self.dropped["no alt text"] += 1
            elif not text:
                self.dropped["empty alt text"] += 1
            else:
                self.kept.append((url, text))


def test_well_formed_pages_are_read_as_by_the_plain_twin():
    draw = random.Random(0)
    addresses = [
        "a.jpg",
        "/a.jpg",
        "../a.jpg",
        "//cdn.example/a.jpg",
        "https://other.example/ä.jpg?x=1&y=2#f",
        "",
        "?q=1",
    ]
    addresses += ["data:image/gif;base64,R0lGOD", "ftp://a.example/b.jpg", "./b/./c.jpg", "d/../e.jpg#x", "a:b.jpg"]
    texts = ["a dog", " a \n dog\t", "", 'café & <tea> "x"', "犬", "  "]
    for _ in range(300):
        tags = []
        for _ in range(draw.randrange(12)):
            attributes = [f'src="{html.escape(draw.choice(addresses))}"'] if draw.random() < 0.9 else []
            attributes += [f"alt='{html.escape(draw.choice(texts), quote=True)}'"] if draw.random() < 0.9 else []
            draw.shuffle(attributes)
            tags.append(f"<div><p>text <img {' '.join(attributes)}> more</p></div>")
        base = draw.choice(["", '<base href="/elsewhere/x.html">', '<base href="https://b.example/y/">'])
        page = f"<!doctype html><html><head>{base}<title>t</title></head><body>{''.join(tags)}</body></html>"
        twin = PlainTags()
        twin.feed(page)
        judged = read(page)
        assert pairs(judged) == twin.kept
        assert causes(judged) == dict(twin.dropped)


def test_addresses_are_resolved_as_urljoin_does():
    parts = ["", "a", "b.jpg", "..", ".", "/", "//h.example", "?q=a/b", "x y", "é", "%20", ";p", "a.b", "..x", "//"]
    draw = random.Random(1)
    for base in (PAGE, "http://h.example", "https://h.example/a/b/", "https://u:p@h.example:81/a?b/c"):
        facts = PageFacts(base)
        for _ in range(500):
            address = "/".join(draw.choices(parts, k=draw.randrange(1, 4))).strip()
            if not address:
                continue
            assert facts.resolve(address) == urljoin(base, address).replace(" ", "%20"), (base, address)


def test_broken_bases_and_addresses_stop_nothing():
    page = (
        '<base href="http://[::bad"><img src="http://[bad" alt="x"><img src="http:///x" alt="y"><img src="a" alt="z">'
    )
    judged = read(page)
    assert pairs(judged) == [(HERE + "a", "z")]
    assert set(causes(judged)) <= {"bad address", "not http"}
    assert len(judged.dropped) == 2


def test_odd_writings_of_addresses_are_those_of_browsers():
    page = '<img src=" a\n b.jpg#part " alt="1"><img src="\\x\\y.jpg" alt="2"><img src="HTTPS://H.example/a" alt="3">'
    assert pairs(read(page)) == [
        (HERE + "a%20b.jpg", "1"),
        ("https://site.example/x/y.jpg", "2"),
        ("HTTPS://H.example/a", "3"),
    ]
    assert causes(read(f'<img src="/{"a" * 9000}" alt="x">')) == {"address too long": 1}


@pytest.mark.parametrize(
    ("tag", "address"),
    [
        ('<img src="p.gif" data-src="big.jpg" alt=x>', "big.jpg"),
        ('<img src="data:image/gif;base64,R0" data-original="big.jpg" alt=x>', "big.jpg"),
        ('<img src="s.jpg" srcset="m.jpg 300w, big.jpg 1200w,s.jpg 100w" alt=x>', "big.jpg"),
        ('<img src="s.jpg" srcset="s.jpg, big.jpg 2x" alt=x>', "big.jpg"),
        ('<img src="s.jpg" srcset="data:image/gif;base64,R0 1w" data-srcset="m.jpg 2w, big.jpg 3w" alt=x>', "big.jpg"),
        ('<img srcset="data:image/gif;base64,R0 1w" src="big.jpg" alt=x>', "big.jpg"),
        ('<picture><source srcset="s.webp 1x, big.webp 2x"><img src="big.jpg" alt=x></picture>', "big.jpg"),
        ('<picture><source srcset="s.webp 10w, big.webp 20w"><img alt=x></picture>', "big.webp"),
        ('<picture><source data-srcset="a,b.webp"><img src="data:," alt=x></picture>', "a,b.webp"),
    ],
)
def test_of_several_addresses_the_picture_itself_is_taken(tag, address):
    assert pairs(read(tag)) == [(HERE + address, "x")]


def test_the_largest_of_a_srcset():
    assert largest([None, "", " , ,"]) is None
    assert largest(["a.jpg 1.5x , b.jpg 1x"]) == "a.jpg"
    assert largest(["a.jpg 100w 50h, b.jpg (x, y) , c.jpg 99w"]) == "a.jpg"
    assert largest(["a.jpg"]) == "a.jpg"
    assert largest(["a.jpg 5q,b.jpg"]) == "a.jpg"
    assert largest(["," * 10**6 + "a.jpg 2x"]) == "a.jpg"
    assert largest(["a," * 10**5 + " 2x"])
    assert largest(["a.jpg " + "(" * 10**5]) is not None


def test_a_copy_for_browsers_without_scripts_is_counted_as_one():
    lazy = (
        '<img class=lazy src="data:," data-src="a.jpg" alt="a dog"><noscript><img src="a.jpg" alt="a dog"></noscript>'
    )
    assert pairs(read(lazy)) == [(HERE + "a.jpg", "a dog")]
    assert causes(read(lazy)) == {"noscript copy": 1}
    smaller = '<img src="a-big.jpg" alt="a dog"><noscript><img src="a.jpg" alt="a dog"></noscript>'
    assert pairs(read(smaller)) == [(HERE + "a-big.jpg", "a dog")]
    before = '<body><noscript><img src="a.jpg" alt="a dog"></noscript><img data-src="a.jpg" alt="a dog">'
    assert (len(read(before).kept), causes(read(before))) == (1, {"noscript copy": 1})
    alone = '<img src="data:," alt="a dog"><noscript><img src="a.jpg" alt="a dog"></noscript>'
    assert (pairs(read(alone)), causes(read(alone))) == ([(HERE + "a.jpg", "a dog")], {"data URL": 1})
    several = alone + alone.replace("a.jpg", "b.jpg")
    assert [url for url, _ in pairs(read(several))] == [HERE + "a.jpg", HERE + "b.jpg"]


def test_what_is_not_shown_is_counted_or_is_no_tag():
    page = '<template><img src="t.jpg" alt="x"><img></template><!-- <img src=c.jpg alt=x> -->'
    judged = read(page + '<script>"<img src=s>"</script><textarea><img src=x></textarea>')
    assert (len(judged.kept), causes(judged)) == (0, {"in a template": 2})


def test_other_texts_are_captions_where_the_source_says_so():
    page = """<figure><div><img src="a.jpg" alt="a dog" title="Rex"></div><figcaption>Rex <b>runs</b>
    on grass</figcaption></figure><img src="b.jpg" title="only a title"><img src="c.jpg" alt="same" title=" same ">"""
    assert [text for _, text in pairs(read(page))] == ["a dog", "same"]
    judged = read(page, texts=("alt", "figcaption", "title"))
    assert [text for _, text in pairs(judged)] == ["a dog\nRex runs on grass\nRex", "only a title", "same"]
    assert causes(read(page, texts=("figcaption",))) == {"no text": 2}


def test_texts_lose_what_shows_nothing():
    page = (
        '<img src=a alt="a\x00\u202e dog\u200b &#8238;&#0; \x85on\u00a0 grass\x07"><img src=b alt="\u200e\u202a \x01">'
    )
    judged = read(page)
    assert [text for _, text in pairs(judged)] == ["a\ufffd dog \ufffd on grass"]
    assert causes(judged) == {"empty alt text": 1}
    assert [text for _, text in pairs(read(b"<img src=a alt='caf\xe9 \xff'>"))] == ["caf\ufffd \ufffd"]


def test_declared_sizes_are_pixels():
    tags = ["width=300 height=200px", "width=50% height=auto", "width=12.6 height=' 7 '", "width=99999999999 height"]
    judged = read("".join(f"<img src=a{n} alt=x {size}>" for n, size in enumerate(tags)))
    sizes = zip(judged.kept["width"].to_pylist(), judged.kept["height"].to_pylist(), strict=True)
    assert list(sizes) == [(300, 200), (None, None), (12, 7), (None, None)]


@pytest.mark.parametrize(
    ("page", "header", "language"),
    [
        ('<html lang="EN-us">', "fr", "en"),
        ('<html xml:lang="pt">', None, "pt"),
        ('<html lang="{{lang}}"><meta http-equiv="Content-Language" content="de">', "fr", "de"),
        ("<html>", "nl, en", None),
        ("<html>", "zh-Hant", "zh"),
    ],
)
def test_the_language_is_that_of_the_page(page, header, language):
    headers = [("content-language", header)] if header else []
    assert read(page + "<img src=a alt=x>", *headers).kept["language"].to_pylist() == [language]


BY, ZERO = "https://creativecommons.org/licenses/by/4.0/", "https://example.org/terms"


@pytest.mark.parametrize(
    ("page", "licences"),
    [
        (f'<img src=a alt=x><footer><a rel="license nofollow" href="{BY}">CC</a></footer>', [BY]),
        ('<link rel=license href="/terms"><img src=a alt=x>', ["https://site.example/terms"]),
        ('<meta name="DC.rights" content=" All  rights reserved "><img src=a alt=x>', ["All rights reserved"]),
        (f'<figure><img src=a alt=x><a rel=license href="{BY}">CC</a></figure><img src=b alt=y>', [BY, None]),
        (f'<div><img src=a alt=x><p><a href="{BY}">CC</a></p></div><p><img src=b alt=y></p>', [BY, None]),
        (f'<div><img src=a alt=x><img src=b alt=y><a href="{BY}">CC</a></div>', [None, None]),
        (
            f'<div itemscope><img src=a alt=x><a itemprop="license" href="{ZERO}"></a></div><img src=b alt=y>',
            [ZERO, None],
        ),
        (f'<meta itemprop=license content="{ZERO}"><img src=a alt=x>', [ZERO]),
        (
            f'<link rel=license href="{ZERO}"><figure><img src=a alt=x><a href="{BY}">CC</a></figure><img src=b alt=y>',
            [BY, ZERO],
        ),
        ("<p>license</p><img src=a alt=x>", [None]),
    ],
)
def test_licences_are_of_the_page_or_of_the_picture_beside_them(page, licences):
    assert read(page).kept["licence"].to_pylist() == licences


def test_the_badge_of_a_licence_does_not_take_it_for_itself():
    page = f'<img src=a alt=x><p><a rel=license href="{BY}"><img src="https://i.example/88x31.png" alt="CC"></a></p>'
    assert read(page).kept["licence"].to_pylist() == [BY, BY]


@pytest.mark.parametrize(
    ("head", "headers", "cause"),
    [
        ('<meta name="robots" content="index, NoAI">', [], "noai"),
        ('<meta name="robots" content="noimageai">', [], "noimageai"),
        ('<meta name="robots" content="none">', [], "noindex"),
        ('<meta name="ROBOTS" content="noimageindex,nofollow">', [], "noimageindex"),
        ('<meta name="diptych" content="noindex">', [], "noindex"),
        ('<meta name="tdm-reservation" content="1">', [], "tdm-reservation"),
        ("", [("x-robots-tag", "noarchive, noai")], "noai"),
        ("", [("x-robots-tag", "diptych: noindex")], "noindex"),
        ("", [("x-robots-tag", "unavailable_after: 25 Jun 2030 15:00:00 PST"), ("x-robots-tag", "noai")], "noai"),
        ("", [("tdm-reservation", "1")], "tdm-reservation"),
        ('<meta name="googlebot" content="noai">', [], None),
        ('<meta name="robots" content="nofollow, max-image-preview:none">', [], None),
        ('<meta name="tdm-reservation" content="0">', [], None),
        ("", [("x-robots-tag", "googlebot: noindex, noai")], None),
    ],
)
def test_pages_that_opt_out_are_left_out(head, headers, cause):
    judged = read(f"<html><head>{head}</head><img src=a alt=x><img src=b>", *headers)
    assert causes(judged) == {"no alt text": 1} | ({f"page opts out: {cause}": 1} if cause else {})
    assert len(read(f"<html><head>{head}</head><img src=a alt=x>", *headers, opt_outs=()).kept) == 1


def test_only_opt_outs_that_are_to_be_obeyed_count():
    assert opt_out_of(OPT_OUTS, [("robots", "noindex noai")], []) == "noai"
    assert opt_out_of(("noindex",), [("robots", "noindex noai")], []) == "noindex"
    assert opt_out_of((), [("robots", "noindex noai")], []) is None


def test_hostile_pages_are_counted_or_read():
    tag = "<img src=a alt=x>"
    assert causes(read("<div>" * 100_000 + tag)) == {"page: made to be slow": 1}
    assert causes(read(("<div>" * 50_000 + "</div>" * 50_000) + tag)) == {"page: made to be slow": 1}
    assert causes(read("<b>" * 30_000 + "<p>x" * 30_000 + tag)) == {"page: made to be slow": 1}
    assert causes(read("<img " + " ".join(f"a{n}" for n in range(50_000)) + ">")) == {"page: made to be slow": 1}
    for page in (
        tag + "<img src='b' alt='" + "x" * 3_000_000 + "'>",
        "<p>" * 100_000 + tag,
        "<br>" * 100_000 + tag,
        tag + f"<img src='data:image/png;base64,{'A/ ' * 300_000}' alt=y>",
        tag * 20_000,
        "<a href=creativecommons.org/licenses/>" * 500 + tag,
        "\x00" * 70_000 + tag,
        "<" * 100_000 + tag,
        tag + "<!--" * 50_000,
        tag + "<img alt='" * 20_000,
        tag + "<svg><path d='" + "M 1 2 " * 50_000 + "'></svg>",
        tag + "&#x202e;" * 30_000,
    ):
        judged = read(page)
        assert len(judged.kept) >= 1
        assert not any(cause.startswith("page: ") for cause in causes(judged))


def test_a_page_with_much_in_it_is_not_taken_for_a_hostile_one():
    rows = "".join(
        f"<tr><td class=a><a href='/{n}'><img src='{n}.jpg' alt='picture {n}'></a></td></tr>" for n in range(5000)
    )
    assert is_slow(f"<table>{rows}</table><ul>{'<li>x' * 5000}</ul>".encode()) is None
    script = "if(a<b){c='<div>'+d}" * 9000
    paths = '<svg viewBox="0 0 9 9">' + '<path d="M 1 2 3"/><g><circle r=1 /></g>' * 5000 + "</svg>"
    for plain in (f"<script>{script}</script>", f"<!-- {script} -->", f"<STYLE>{script}</style>", paths):
        assert is_slow(f"{plain}<img src=a alt=x>".encode()) is None
        assert is_slow(f"{plain}{'<div/>' * 4000}".encode()) is not None
    assert len(read(f"<table>{rows}</table>").kept) == 5000


@pytest.mark.parametrize("seed", range(20))
def test_any_bytes_are_survived(seed):
    draw = random.Random(seed)
    bits = [
        "<img",
        " src=",
        " alt=",
        '"',
        "'",
        ">",
        "<",
        "</",
        "a.jpg",
        " srcset=",
        "1x,",
        "<picture>",
        "<noscript>",
        "<base href=",
    ]
    bits += [
        "<template>",
        "<figure>",
        "<meta name=robots content=",
        "\x00",
        "\u202e",
        "&#xd800;",
        "&lt",
        "<svg>",
        "<math>",
        "http://[",
    ]
    bits += [
        "<html lang=",
        "license",
        " rel=license",
        " href=",
        "<a",
        "//",
        "\udcff",
        "<select>",
        "<frameset>",
        "<table>",
        "<form>",
    ]
    for _ in range(50):
        read("".join(draw.choices(bits, k=60)), texts=("alt", "title", "figcaption"))
