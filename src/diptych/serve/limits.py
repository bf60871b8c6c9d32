"""Limits: how much one request may ask, and how much may wait."""

import dataclasses
from dataclasses import dataclass

from diptych.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a server takes on. Beyond it a request is refused with one sentence, and the next one is served.

    The most memory that requests can take is about 6 * bodies_in_hand for their text, 8 bytes (of 16-bit grey 25, of a
    progressive JPEG 16) for each of `pixels` of the pictures that are being decoded, `decoders` of them and as many as
    are over their time, `pictures_waiting` at the model's size, and eight files of `body_bytes` behind URLs.
    """

    body_bytes: int = 20 * 2**20  # of one request; a picture as base64 takes 4/3 of its file
    bodies_in_hand: int = 160 * 2**20  # bytes of all requests that are being read or answered
    requests_in_hand: int = 512
    pixels: int = 50_000_000  # of one picture, checked by its header before it is decoded
    pictures: int = 32  # in one request
    texts: int = 1024  # in one request; of classify: labels times prompt templates
    characters: int = 10_000  # of one text; what the model reads ends far earlier
    all_characters: int = 500_000  # of the texts of one request
    pictures_waiting: int = 128  # of all requests, decoded or about to be
    texts_waiting: int = 4096
    batch: int = 32  # pictures in one forward pass
    text_batch: int = 256  # texts in one forward pass; one costs far less than a picture
    delay: float = 0.005  # s that the first of a batch waits for others
    decoders: int = 2  # threads; as many draw, and search
    work_seconds: float = 10.0  # for decoding one picture, drawing one, one look into the library
    seconds: float = 30.0  # for a request to arrive, and again for its answer
    results: int = 200  # of one search

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if value < 0 or (value == 0 and name != "delay"):
                raise ConfigError(f"limits.{name} must be above 0. Got {value}.")
        pairs = {"pictures": "pictures_waiting", "texts": "texts_waiting", "body_bytes": "bodies_in_hand"}
        for one, all_ in pairs.items():
            if getattr(self, one) > getattr(self, all_):
                raise ConfigError(
                    f"limits.{one} must be at most limits.{all_}, or the largest request never finds room. "
                    f"Got {getattr(self, one):,} and {getattr(self, all_):,}."
                )
