"""The picture tags of a page of HTML: address, texts, size and licence of each, or its fault. [extra: curate]

Of several addresses in a tag the first of these that is one of the web is taken: the largest of `srcset` and
`data-srcset`; those that scripts put in place of a placeholder (`LAZY`); `src`; the largest of the `<source>`s of its
`<picture>`. Pictures of `<noscript>` are for browsers without scripts, and mostly copies of one beside them: such a
copy is counted as one. What stands in a `<template>` is not shown, and is counted too. Comments, scripts, frames and
fields of text hold no tags.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import urljoin, urlsplit

from diptych.crawl.collected import Collected, as_text, clean_text, fault_of, language_of, pixels_of, plain_address
from diptych.errors import missing_extra

LAZY = ("data-src", "data-lazy-src", "data-original", "data-lazy", "data-echo")
TEXTS = ("alt", "title", "figcaption")
OPT_OUTS = ("noai", "noimageai", "noindex", "noimageindex", "tdm-reservation")
AGENT = "diptych"  # by which a page may speak to us alone

_SETS = ("srcset", "data-srcset", "data-lazy-srcset")
_LATER = frozenset((*_SETS, *LAZY))
_CANDIDATE = re.compile(r"[\s,]*+(\S*[^\s,])(?:,|\s+(?:([^\s,()]+)\s*)?(?:[^,()]|\([^)]*\)?|\))*+(?:,|\Z)|\Z)")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)([wx])")
_LARGE_PAGE = 2**16  # bytes from which on it is looked whether a page is made to be slow
_DEEPEST = 3000  # tags open at once; browsers stop at 512, and a parser's time grows with the square
_MOST_ATTRIBUTES = 2000  # of one tag, likewise
_TAG = re.compile(
    rb"<!--(?:-?>|.*?(?:--!?>|\Z))|<(script|style|textarea|title|iframe|xmp)\b.*?(?:</\1\b|\Z)"
    rb"|<(/?)([a-z][a-z0-9:-]*)((?:[^<>\"']|\"[^\"]*\"|'[^']*')*+)>?",
    re.IGNORECASE | re.DOTALL,
)
_QUOTED = re.compile(rb"\"[^\"]*\"|'[^']*'")
_NEVER_NESTED = frozenset(  # they have no end, or need none
    b"area base br col embed hr img input link meta param source track wbr p li dt dd tr td th tbody thead tfoot "
    b"colgroup caption option optgroup rt rp html head body".split()
)
_NOT_OF_DRAWINGS = frozenset(  # within <svg> and <math> other tags may end in themselves
    b"b big blockquote center code div dl em h1 h2 h3 h4 h5 h6 i menu ol pre s small span strong sub sup table tt u ul "
    b"a nobr strike var".split()
)
_RIGHTS = frozenset(("dc.rights", "dcterms.rights", "dc.rights.license", "dcterms.license", "license", "licence"))
_MARKS = '[rel~="license" i], [itemprop~="license" i], a[href*="creativecommons.org/licenses/" i]'
_MOST_MARKS = 200  # of a page; each looks for pictures around it
_NEAR = 4  # levels that a licence stands above or beside a picture, at most
_LONGEST_LICENCE = 300  # characters


class PageFacts:
    """What a page says of all its pictures.

    Args:
        address: of the page.
        base: what it says addresses are relative to; empty: its own.
        language: tags of languages, the first that is one counts.
        opt_out: the first of its opt-outs that is obeyed.
        licence: of the page.
    """

    def __init__(
        self,
        address: str,
        *,
        base: str = "",
        language: Iterable[Any] = (),
        opt_out: str | None = None,
        licence: str | None = None,
    ) -> None:
        self.address = plain_address(address)
        self._set_base(self.address)
        if base and not fault_of(resolved := self.resolve(base)):
            self._set_base(resolved)
        self.language = next(filter(None, map(language_of, language)), None)
        self.opt_out = opt_out
        self.licence = licence

    def _set_base(self, address: str) -> None:
        try:
            parts = urlsplit(address)
        except ValueError:
            parts = urlsplit("")
        self._base = address
        self._host = f"{parts.scheme}://{parts.netloc}"
        self._folder = self._host + (parts.path[: parts.path.rfind("/") + 1] or "/")

    def resolve(self, address: str) -> str:
        """An address of the page in full; what cannot be one stays as it is."""
        address = plain_address(address)
        if not address or address[:8].lower().startswith(("http://", "https://", "data:")):
            return address
        if "\\" in address:
            address = address.replace("\\", "/")
        try:
            if address[0] in ".?;" or "/." in address or "//" in address or ":" in address:
                return urljoin(self._base, address)
        except ValueError:
            return address
        return (self._host if address[0] == "/" else self._folder) + address


def opt_out_of(
    obeyed: Sequence[str], metas: Iterable[tuple[str, str]], headers: Iterable[tuple[str, str]]
) -> str | None:
    """The first opt-out of a page that is to be obeyed.

    Args:
        obeyed: some of `OPT_OUTS`.
        metas: name and content of each meta tag, names in lower case.
        headers: name and value of each HTTP header, likewise.
    """
    said = set[str]()
    for name, content in metas:
        if name in ("robots", AGENT):
            said.update(re.split(r"[\s,]+", content.lower()))
        elif name == "tdm-reservation" and content.strip() == "1":
            said.add(name)
    for name, content in headers:
        if name == "x-robots-tag":
            agent = ""
            for token in content.lower().split(","):
                before, colon, after = token.rpartition(":")
                if colon and "unavailable_after" not in before:
                    agent, token = before.strip(), after
                if agent in ("", "*", AGENT):
                    said.update(token.split())
        elif name == "tdm-reservation" and content.strip() == "1":
            said.add(name)
    if "none" in said:
        said.add("noindex")
    return next((name for name in obeyed if name in said), None)


def largest(sets: Iterable[str | None]) -> str | None:
    """The largest picture of some `srcset`s, by width, else by density; the first of equal ones.

    >>> largest(["a.jpg 1x, b.jpg 2x", "c,d.jpg 300w, e.jpg 600w"])
    'e.jpg'
    """
    found: list[tuple[bool, float, str]] = []
    for text in sets:
        position = 0
        while text and (match := _CANDIDATE.match(text, position)):
            position = match.end()
            size = _SIZE.fullmatch(match[2] or "1x")
            found.append((size is not None and size[2] == "w", float(size[1]) if size else 1.0, match[1]))
    return max(found, key=lambda item: item[:2])[2] if found else None


def is_slow(content: bytes) -> str | None:
    """What of a page is made to take a parser's time: more than any page has of it; None for others."""
    depth = drawings = 0
    for match in _TAG.finditer(content):
        _, end, name, said = match.groups()
        if name is None:  # a comment, or what holds text alone
            continue
        name = name.lower()
        if len(said) > _MOST_ATTRIBUTES and len(_QUOTED.sub(b"", said).split()) > _MOST_ATTRIBUTES:
            return f"more than {_MOST_ATTRIBUTES:,} attributes in a tag"
        if name in _NEVER_NESTED or (drawings and said.endswith(b"/") and name not in _NOT_OF_DRAWINGS):
            continue
        if name in (b"svg", b"math"):
            drawings = max(0, drawings - 1) if end else drawings + 1
        depth = max(0, depth - 1) if end else depth + 1
        if depth > _DEEPEST:
            return f"more than {_DEEPEST:,} tags within each other"
    return None


@dataclass(frozen=True, kw_only=True)
class PageRules:
    """How pages are read."""

    texts: tuple[str, ...] = ("alt",)  # which of `TEXTS` become captions, in this order
    opt_outs: tuple[str, ...] = OPT_OUTS  # that are obeyed
    largest: int = 10**7  # bytes of a page; a larger one is left out


def read_page(
    content: bytes, address: str, headers: Sequence[tuple[str, str]], collected: Collected, rules: PageRules
) -> None:
    """Collect the picture tags of a page, each kept or dropped, in their order.

    Args:
        content: HTML, UTF-8.
        address: of the page.
        headers: name, in lower case, and value of each HTTP header.
        collected: where they go.
        rules: how.

    Raises:
        MissingExtraError: selectolax is not installed.
    """
    try:
        from selectolax.lexbor import LexborDocumentOptions, LexborHTMLParser
    except ImportError:
        raise missing_extra("reading pages", "curate") from None
    if len(content) > _LARGE_PAGE and (reason := is_slow(content)):
        collected.drop(address, "", "page: made to be slow", reason)
        return
    tree = LexborHTMLParser(content, options=LexborDocumentOptions.WO_EVENTS)
    nodes = tree.tags("img")
    hidden = [node for part in tree.template_fragments() for node in part.css("img")] if tree.tags("template") else []
    if not nodes and not hidden:
        return
    facts, licences = _facts(tree, content, address, headers, rules.opt_outs)
    copies = {node.mem_id for outer in tree.tags("noscript") for node in outer.css("img")}
    found = [_read_tag(node, facts, rules.texts) for node in nodes]
    shown = {tag.url for node, tag in zip(nodes, found, strict=True) if not tag.fault and node.mem_id not in copies}
    before = ""  # text of the tag before that is for all browsers, where it was kept
    for node, tag in zip(nodes, found, strict=True):
        if node.mem_id not in copies:
            before = "" if tag.fault else tag.text
        elif not tag.fault and (tag.url in shown or tag.text == before):
            tag = tag._replace(fault="noscript copy")
        collect(tag, facts, collected, licences.get(node.mem_id))
    for node in hidden:
        collect(_read_tag(node, facts, rules.texts)._replace(fault="in a template"), facts, collected)


class Tag(NamedTuple):
    """What a picture tag says."""

    url: str  # empty where it is no address of the web
    text: str
    fault: str | None  # why it is left out
    width: int | None = None  # px, as it is to be shown
    height: int | None = None


def collect(tag: Tag, facts: PageFacts, collected: Collected, licence: str | None = None) -> None:
    """A tag of a page, as a row that is kept or dropped.

    Args:
        tag: of the page.
        facts: of the page.
        collected: where it goes.
        licence: of this picture alone.
    """
    fault = tag.fault or (facts.opt_out and f"page opts out: {facts.opt_out}")
    if fault:
        collected.drop(tag.url or facts.address, tag.text, fault)
        return
    collected.keep(
        tag.url,
        tag.text,
        url=tag.url,
        page=facts.address,
        licence=licence or facts.licence,
        language=facts.language,
        width=tag.width,
        height=tag.height,
    )


def read_address(written: Iterable[str | None], facts: PageFacts) -> tuple[str, str | None]:
    """The first address of the web among some; else an empty one, and the cause, which is the first one's.

    Args:
        written: as they stand in a tag.
        facts: of the page.
    """
    fault = "no address"
    for address in written:
        if address:
            url = facts.resolve(address)
            reason = fault_of(url)
            if not reason:
                return url, None
            fault = reason if fault == "no address" else fault
    return "", fault


def _read_tag(node: Any, facts: PageFacts, texts: Sequence[str]) -> Tag:
    attributes = node.attributes
    url, fault = read_address(_candidates(node, attributes), facts)
    text = as_text(_text_of(node, attributes, name) for name in texts)
    if not fault and not text:
        fault = missing_text(texts, has_alt="alt" in attributes)
    width, height = attributes.get("width"), attributes.get("height")
    return Tag(url, text, fault, width and pixels_of(width), height and pixels_of(height))


def missing_text(texts: Sequence[str], *, has_alt: bool) -> str:
    """The cause of a tag without a text."""
    return "no text" if "alt" not in texts else "empty alt text" if has_alt else "no alt text"


def _candidates(node: Any, attributes: Mapping[str, str | None]) -> Iterator[str | None]:
    """Addresses as they are written, the best one first."""
    if not _LATER.isdisjoint(attributes):
        yield largest(attributes.get(name) for name in _SETS)
        yield from (attributes.get(name) for name in LAZY)
    yield attributes.get("src")
    if (picture := node.parent) is not None and picture.tag == "picture":
        sources = [source.attributes for source in picture.iter() if source.tag == "source"]
        yield largest(source.get(name) for source in sources for name in _SETS)


def _text_of(node: Any, attributes: Mapping[str, str | None], name: str) -> str:
    if name != "figcaption":
        return attributes.get(name) or ""
    figure = _ancestor(node, lambda outer: outer.tag == "figure")
    caption = figure.css_first("figcaption") if figure is not None else None
    return caption.text(separator=" ") if caption is not None else ""


def _facts(
    tree: Any, content: bytes, address: str, headers: Sequence[tuple[str, str]], opt_outs: Sequence[str]
) -> tuple[PageFacts, Mapping[int, str]]:
    """What is said of all pictures, and the licences of some."""
    metas = [
        ((said.get("name") or said.get("http-equiv") or said.get("property") or "").strip().lower(), value)
        for said in (node.attributes for node in tree.tags("meta"))
        if (value := said.get("content"))
    ]
    tag = tree.root.attributes if tree.root is not None else {}
    languages = [tag.get("lang"), tag.get("xml:lang")]
    languages += [value for name, value in (*metas, *headers) if name == "content-language"]
    base = next((href for node in tree.tags("base") if (href := node.attributes.get("href"))), "")
    facts = PageFacts(
        address, base=base, language=languages, opt_out=opt_out_of(opt_outs, metas, headers), licence=rights_of(metas)
    )
    return facts, _licences(tree, facts) if b"license" in content else {}


def rights_of(metas: Iterable[tuple[str, str]]) -> str | None:
    """The licence that meta tags of a page tell."""
    return next((clean_text(content)[:_LONGEST_LICENCE] for name, content in metas if name in _RIGHTS), None)


def _licences(tree: Any, facts: PageFacts) -> Mapping[int, str]:
    """Licences of single pictures; that of the page goes to its facts, where a mark of the page tells one."""
    found: dict[int, str] = {}
    for mark in tree.css(_MARKS)[:_MOST_MARKS]:
        said = mark.attributes
        own = {node.mem_id for node in mark.css("img")}  # a badge of the licence
        licence = clean_text(facts.resolve(said.get("href") or "") or said.get("content") or mark.text())
        licence = licence[:_LONGEST_LICENCE]
        of_page = "license" in (said.get("rel") or "").lower().split()
        if "license" in (said.get("itemprop") or "").lower().split():
            outer = _ancestor(mark, lambda node: "itemscope" in node.attributes)
            of_page = of_page or outer is None
        else:
            outer = _ancestor(mark, lambda node: node.tag == "figure") or (None if of_page else _single(mark, own))
        near = [node.mem_id for node in outer.css("img") if node.mem_id not in own] if outer is not None else []
        for number in near if licence else ():
            found.setdefault(number, licence)
        if of_page and not near and licence:
            facts.licence = facts.licence or licence
    return found


def _single(mark: Any, own: Collection[int]) -> Any:
    """What is around a licence and one picture, which is none of its own."""
    outer = mark.parent
    for _ in range(_NEAR):
        if outer is None or outer.tag == "body":
            return None
        if others := sum(node.mem_id not in own for node in outer.css("img")):
            return outer if others == 1 else None
        outer = outer.parent
    return None


def _ancestor(node: Any, is_it: Callable[[Any], bool]) -> Any:
    outer = node.parent
    while outer is not None and not is_it(outer):
        outer = outer.parent
    return outer
