"""Options of fetching: `[fetch]` of a recipe."""

import re
from dataclasses import dataclass
from typing import Literal

from diptych.addresses import HostList
from diptych.errors import ConfigError
from diptych.version import __version__


@dataclass(frozen=True, kw_only=True)
class Fetch:
    """How pictures are fetched. Limits are those of one process, which fetches all parts of a run on this machine."""

    part_rows: int = 1_000  # rows of a part, whose pictures are held in memory at once; several parts are under way
    connections: int = 100  # at once, in all
    per_host: int = 4  # connections at once to one host
    delay: float = 0.0  # seconds between the beginnings of two requests to one host
    lookups: int = 16  # names that are looked up at once for a part
    seconds_dns: float = 10.0  # for the addresses of a host, looked up once a part
    seconds_connect: float = 10.0
    seconds_silent: float = 10.0  # before the first byte, and between two
    seconds: float = 30.0  # for one request in all
    max_bytes: int = 20_000_000  # of one picture, as it comes and unpacked
    redirects: int = 5  # followed, each checked like the first address
    retries: int = 2  # after the first try, where the cause may pass within the minute
    back_off: float = 1.0  # seconds before the first of them; each later one waits twice as long
    max_wait: float = 30.0  # seconds that a server may make us wait (Retry-After); beyond, its host is left alone
    max_host_failures: int = 5  # requests to a host that fail in a row, after which the rest is not asked
    agent: str = "diptych"  # the name by which robots.txt and X-Robots-Tag know us
    contact: str = "https://pypi.org/project/diptych"  # whom a site can ask about this run: put your page or mail here
    respect_robots: bool = True  # robots.txt, RFC 9309
    respect_opt_out: bool = True  # X-Robots-Tag, tdm-reservation, and /.well-known/tdmrep.json
    check_certificates: bool = True
    allow_hosts: tuple[str, ...] = ()  # hosts that may lie in a private network, e.g. "127.0.0.1:8000"
    keep_other_bytes: bool = False  # a picture whose SHA-256 is not the one in the list is kept all the same
    reencode: Literal["", "sideways", "all"] = ""  # pictures made anew, upright in sRGB: those that lie on their side
    format: Literal["jpeg", "webp", "png"] = "jpeg"  # of those
    quality: int = 95  # 1 to 100
    longest_side: int = 0  # px that they are shrunk to where they are larger; 0: as they are
    max_pixels: int = 100_000_000  # decoded to make one anew

    def __post_init__(self) -> None:
        for name, least in (
            ("part_rows", 1), ("connections", 1), ("per_host", 1), ("lookups", 1), ("max_bytes", 1), ("redirects", 0),
            ("retries", 0), ("delay", 0), ("back_off", 0), ("max_wait", 0), ("max_host_failures", 1),
            ("longest_side", 0), ("max_pixels", 1),
        ):  # fmt: skip
            if not least <= getattr(self, name) < float("inf"):
                raise ConfigError(f"fetch.{name} must be at least {least}. Got {getattr(self, name)}.")
        for name in ("seconds_dns", "seconds_connect", "seconds_silent", "seconds"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ConfigError(f"fetch.{name} must be above 0. Got {getattr(self, name)}.")
        if not 1 <= self.quality <= 100:
            raise ConfigError(f"fetch.quality must be 1 to 100. Got {self.quality}.")
        if self.reencode not in ("", "sideways", "all"):
            raise ConfigError(f'fetch.reencode must be "", "sideways" or "all". Got {self.reencode!r}.')
        if self.format not in ("jpeg", "webp", "png"):
            raise ConfigError(f"fetch.format must be jpeg, webp or png. Got {self.format!r}.")
        if not re.fullmatch(r"[A-Za-z_-]+", self.agent):  # RFC 9309, section 2.2.1
            raise ConfigError(f"fetch.agent must be of letters, _ and -. Got {self.agent!r}.")
        if not re.fullmatch(r"[\x21-\x7e]+", self.contact):
            raise ConfigError(f"fetch.contact must be a page or mail address in ASCII. Got {self.contact!r}.")
        HostList(self.allow_hosts, "fetch.allow_hosts")

    @property
    def user_agent(self) -> str:
        """Who we say that we are, in every request."""
        return f"Mozilla/5.0 (compatible; {self.agent}/{__version__}; +{self.contact})"
