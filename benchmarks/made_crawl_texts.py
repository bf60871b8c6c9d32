"""Texts as pages put them beside pictures: names of what is shown, told in many ways, and what tells nothing of it."""

from collections.abc import Callable, Sequence

import numpy as np

from diptych.data.tar import TarReader

LANGUAGES = ("de", "es", "fr", "it", "pt", "ru", "tr", "ja", "ko", "zh")

_TOLD = ("{}", "{}", "{}", "{}", "{}", "{}", "{} icon", "{} emoji", "a drawing of a {}", "cute {} sticker",
         "{} clipart", "Illustration of {}", "{} on a white background", "vector art: {}")  # fmt: skip
_SEO = (
    "{} - buy now, free shipping", "{} PNG transparent 4K HD download {}", "best {} {} cheap online shop", "{}...",
    "{} <br /> &nbsp;", "{0}, {0}, {0}, {0}, {0}, {0}", "{} | Free Stock Pictures {}", "#{} #instagood #picoftheday",
)  # fmt: skip
_FILES = ("IMG_{}.jpg", "DSC0{}.JPG", "image{}", "{}x{}", "screenshot-{}", "{:08x}{:08x}", "product_{}_main.png",
          "wp-image-{}", "photo{}", "thumb_{}_{}.webp")  # fmt: skip
_SITE = {
    "en": ("click here to enlarge", "Image may contain: text", "Advertisement", "photo", "View full size", "Read more",
           "Add to cart", "loading", "No image available", "thumbnail", "Share on Facebook", "placeholder"),
    "de": ("hier klicken", "Bild", "kein Bild verfügbar", "weiterlesen", "Produktbild"),
    "fr": ("cliquez ici", "en savoir plus", "lire la suite", "image de profil"),
    "es": ("haz clic aquí", "leer más", "imagen", "sin imagen disponible"),
}  # fmt: skip
_FIRST = ("Anna", "Ben", "Carla", "Deepak", "Elena", "Femi", "Grace", "Hiro", "Ines", "Jonas", "Kofi", "Lena", "Mateo",
          "Nadia", "Omar", "Priya", "Quentin", "Rosa", "Sven", "Tara", "Umar", "Vera", "Wei", "Yusuf")  # fmt: skip
_LAST = ("Adler", "Brooks", "Castro", "Diaz", "Ekman", "Fischer", "Grant", "Hughes", "Ivanov", "Jansen", "Khan",
         "Larsen", "Moreau", "Novak", "Okafor", "Patel", "Quinn", "Rossi", "Silva", "Tanaka", "Vogel")  # fmt: skip
_CITIES = ("Springfield", "Leeds", "Porto", "Lyon", "Graz", "Austin", "Osaka", "Lagos", "Bergen", "Ghent", "Perth",
           "Kyoto", "Turin", "Denver", "Malmö", "Quito")  # fmt: skip
_ROLES = ("chair of the board", "senior editor", "sales manager", "guest speaker", "regional director", "our trainer",
          "head of marketing", "volunteer")  # fmt: skip
_GOODS = ("sofas", "running shoes", "kitchen sets", "winter jackets", "laptops", "garden tools", "mattresses",
          "office chairs", "phone cases", "bike parts")  # fmt: skip
_CHAT = (
    "{first} {last}, {role}", "our team at the annual meeting in {city}", "{n}% off all {goods} this week only",
    "listing {n} in {city}, three bedrooms", "post by {first} on the forum", "how to save on {goods} in {city}",
    "{first} and {last} at the opening night", "the new {goods} collection is here", "chapter {n}: what happened next",
    "throwback to {city} with {first}", "sponsored by {last} and partners", "a word from {first} {last}",
    "our office in {city}", "why we love {goods}", "meet {first}, {role}", "week {n} of the challenge",
)  # fmt: skip


class Texts:
    """Texts by chance, one stream.

    Args:
        draw: where the chance comes from.
        names: what each picture shows, in other languages: {"de": {"red apple": "roter apfel"}}.
    """

    def __init__(self, draw: np.random.Generator, names: dict[str, dict[str, str]]) -> None:
        self._draw, self._names = draw, names

    def one_of(self, texts: Sequence[str]) -> str:
        return texts[int(self._draw.integers(len(texts)))]

    def true(self, caption: str) -> str:
        """What is shown, in English."""
        name, _, tags = caption.partition("\n")
        if tags and self._draw.random() < 0.2:
            return f"{name}, {tags}"
        text = self.one_of(_TOLD).format(name)
        return text.title() if self._draw.random() < 0.1 else text

    def in_language(self, caption: str, language: str) -> str | None:
        """What is shown, in another language, where its name is known."""
        return self._names.get(language, {}).get(caption.partition("\n")[0])

    def seo(self, caption: str) -> str:
        """What is shown, in noise."""
        return self.one_of(_SEO).format(caption.partition("\n")[0], self._number())

    def file_name(self) -> str:
        return self.one_of(_FILES).format(self._number(), self._number())

    def site(self, language: str) -> str:
        """What a page says of itself."""
        return self.one_of(_SITE.get(language, _SITE["en"]))

    def chat(self) -> str:
        """What tells of people, places and goods, and not of what a picture shows."""
        fields: dict[str, Callable[[], str | int]] = {
            "first": lambda: self.one_of(_FIRST),
            "last": lambda: self.one_of(_LAST),
            "city": lambda: self.one_of(_CITIES),
            "role": lambda: self.one_of(_ROLES),
            "goods": lambda: self.one_of(_GOODS),
            "n": lambda: self._number() % 100,
        }
        return self.one_of(_CHAT).format(**{name: make() for name, make in fields.items()})

    def _number(self) -> int:
        return int(self._draw.integers(1000, 10_000))


def names_in_languages() -> dict[str, dict[str, str]]:
    """Names of emoji in other languages, by the English one; empty without the package `emoji`."""
    try:
        import emoji  # pyright: ignore[reportMissingImports]
    except ImportError:
        return {}
    for language in LANGUAGES:
        emoji.config.load_language(language)
    names: dict[str, dict[str, str]] = {language: {} for language in LANGUAGES}
    for facts in emoji.EMOJI_DATA.values():
        english = _plain(facts["en"])
        for language in LANGUAGES:
            if language in facts:
                names[language].setdefault(english, _plain(facts[language]))
                names[language].setdefault(f"flag: {english}", _plain(facts[language]))
    return names


def _plain(name: str) -> str:
    return name.strip(":").replace("_", " ").lower()


def pairs_of(paths: Sequence, ending: str) -> list[tuple[str, bytes, str]]:
    """Key, picture and captions of each sample of some shards."""
    found = []
    for path in paths:
        reader = TarReader(path)
        for sample in reader.index().samples:
            parts = {name: reader.read(*span) for name, span in sample.parts.items() if name in (ending, "txt")}
            found.append((sample.key, parts[ending], parts.get("txt", b"").decode()))
    return found
