"""What a site asks of crawlers: robots.txt (RFC 9309), headers, and the file of the TDM Reservation Protocol.

Own code, and little, since all of it comes from strangers: only the rules that speak to us are kept, and a pattern
is matched in one pass, so that no file of the size that is read (`MOST_BYTES`) takes memory or time.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import quote, unquote_to_bytes

MOST_BYTES = 512_000  # of a file of rules; RFC 9309 wants 500 KiB at least, what is behind is not read
# Who tells these crawlers to stay away speaks of collections of pictures for models, and so of us.
ALSO_OURS = ("img2dataset",)
OPT_OUTS = ("noai", "noimageai", "noindex", "noimageindex", "none")  # of X-Robots-Tag
_AGENT = re.compile(r"[a-z0-9_\-]+\s*:")
_TOKEN = re.compile(r"[a-z0-9_\-]+")  # digits too, which RFC 9309 does not foresee and img2dataset has
_WORDS_WITH_COLON = ("unavailable_after", "max-snippet", "max-image-preview", "max-video-preview")


Pattern = tuple[str, bool]  # of paths, and whether it allows them


@dataclass(frozen=True)
class Rules:
    """What may be fetched of a site: all groups of rules that speak to us have to allow it."""

    groups: tuple[tuple[Pattern, ...], ...] = ()

    @classmethod
    def read_robots(cls, text: str, agent: str) -> Self:
        """The rules of a robots.txt for one crawler.

        Groups that name it count, all of them together, and else those of `*`; besides, groups that name one of
        `ALSO_OURS`.

        Args:
            text: the file.
            agent: the crawler's product token, e.g. "diptych".
        """
        groups = _groups(text, {agent.lower(), *ALSO_OURS, "*"})
        mine = groups.get(agent.lower(), groups.get("*", []))
        others = [groups[name] for name in ALSO_OURS if name in groups and name != agent.lower()]
        return cls(tuple(map(tuple, (mine, *others))))

    @classmethod
    def read_reservations(cls, text: str) -> Self:
        """The rules of a /.well-known/tdmrep.json; what cannot be read reserves nothing."""
        try:
            entries = json.loads(text)
        except (ValueError, RecursionError):
            return cls()
        rules = [_reservation(entry) for entry in entries] if isinstance(entries, list) else []
        return cls((tuple(rule for rule in rules if rule),))

    def allow(self, target: str) -> bool:
        """Whether a path with its query is allowed: in a group the longest pattern that fits decides, of two a yes.

        >>> Rules(((("/a", False), ("/a/b", True)),)).allow("/a/b.jpg")
        True
        """
        path = _normal(target, is_pattern=False)
        return all(
            max(((len(pattern), yes) for pattern, yes in group if _fits(pattern, path)), default=(0, True))[1]
            for group in self.groups
        )


def opt_out_of(headers: Iterable[tuple[str, str]], agent: str) -> str | None:
    """By which header an answer is kept from models or from mining; None where it is not.

    A directive for another crawler ("googlebot: noindex") is not ours.

    >>> opt_out_of([("X-Robots-Tag", "nofollow, noai")], "diptych")
    'X-Robots-Tag: noai'
    """
    ours = {agent.lower(), *ALSO_OURS}
    for name, value in headers:
        if name.lower() == "tdm-reservation" and value.strip() == "1":
            return "tdm-reservation: 1"
        if name.lower() != "x-robots-tag":
            continue
        speaks_to_us = True
        for part in value.lower().split(","):
            directive = part.strip()
            if _AGENT.match(directive) and not directive.startswith(_WORDS_WITH_COLON):
                told, _, directive = directive.partition(":")
                speaks_to_us, directive = told.strip() in ours, directive.strip()
            if speaks_to_us and directive in OPT_OUTS:
                return f"X-Robots-Tag: {directive}"
    return None


def _groups(text: str, wanted: set[str]) -> Mapping[str, list[Pattern]]:
    """The rules of each crawler that is wanted and that the file names."""
    groups: dict[str, list[Pattern]] = {}
    current: list[list[Pattern]] = []
    naming = False
    for line in re.split(r"\r\n|\r|\n", text.removeprefix("\ufeff")):
        field, colon, value = line.partition("#")[0].partition(":")
        field, value = field.strip().lower(), value.strip()
        if not colon:
            continue
        if field == "user-agent":
            current = current if naming else []
            naming = True
            name = value.lower() if value == "*" else (_TOKEN.match(value.lower()) or [""])[0]
            if name in wanted:
                current.append(groups.setdefault(name, []))
        elif field in ("allow", "disallow"):
            naming = False
            if value:  # an empty one says nothing
                rule = (_normal(value, is_pattern=True), field == "allow")
                for rules in current:
                    rules.append(rule)
    return groups


def _reservation(entry: Any) -> Pattern | None:
    if not isinstance(entry, dict) or not isinstance(location := entry.get("location"), str):
        return None
    reserved = entry.get("tdm-reservation")
    if isinstance(reserved, bool) or reserved not in (0, 1):
        return None
    return _normal(location, is_pattern=True), reserved == 0


def _normal(text: str, *, is_pattern: bool) -> str:
    """A path or pattern with every character quoted in one way, so that two spellings compare equal (section 2.2.2)."""
    safe = "/?=&:@!'(),;+~[]|" + "*$" * is_pattern
    parts = re.split(r"(%2[Ff]|%2[Aa]|%24)", text)  # these mean another thing when they are not quoted
    return "".join(
        part.upper() if number % 2 else quote(unquote_to_bytes(part), safe=safe) for number, part in enumerate(parts)
    )


def _fits(pattern: str, path: str) -> bool:
    """Whether a pattern fits the begin of a path: `*` stands for anything, `$` at its end for the path's end.

    Each piece between stars is looked for once, as early as it can be; no pattern makes this go back.
    """
    anchored = pattern.endswith("$")
    first, *rest = pattern.removesuffix("$").split("*")
    if not path.startswith(first):
        return False
    if not rest:
        return not anchored or path == first
    return _pieces_fit(rest, path, len(first), anchored)


def _pieces_fit(pieces: Sequence[str], path: str, at: int, anchored: bool) -> bool:
    for piece in pieces[:-1] if anchored else pieces:
        found = path.find(piece, at)
        if found < 0:
            return False
        at = found + len(piece)
    return not anchored or (len(path) - len(pieces[-1]) >= at and path.endswith(pieces[-1]))
