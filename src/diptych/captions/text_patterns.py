"""Rules that know captions by their form: names of files, addresses and codes, what tells of a person."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from diptych.captions.captions import Captions, Verdict, shown
from diptych.captions.characters import DIGIT, SPACE

_PICTURE_NAME = r"(?i)\.(?:jpe?g|jpe|jfif|png|gif|bmp|webp|svg|tiff?|avif|heic|ico|psd)\s*$"
# A day and a time, with the words that stand between them.
_TAIL = r"[^\pL]*(?:(?:at|um|om|a las|à|alle|às|в|o|上午|下午|午前|午後|오전|오후)[^\pL]+)*(?:am|pm)?[^\pL]*"
_CAMERA_NAME = (
    r"(?i)^\s*(?:"
    r"(?:img|dsc[nf]?|dcp|pict|mvi|vid|gopr|gp|sam|cimg|p|pxl|hpim|kif|scan|scn|photo|image|imagen|foto|bild|capture|"
    r"captura|snapshot|wp|fb[_ -]img)[_ -]?\d{3,}[\d _()-]*"
    r"(?:[_ -]?(?:copy|edit(?:ed)?|final|small|large|web|wa\d+|[a-z]))?|"
    r"(?:(?:whatsapp|signal|telegram)[_ -](?:image|video|photo)[_ -]?|(?:screen[_ -]?shot|bildschirmfoto|"
    r"captura de (?:pantalla|tela|ecrã)|capture d.écran|schermata|schermafbeelding|zrzut ekranu|снимок экрана|"
    r"ekran (?:resmi|görüntüsü)|スクリーンショット|屏幕截图|螢幕截圖|截屏|스크린샷)[^\pL]*)\d" + _TAIL + r")\s*$"
)
_ADDRESS = r"(?i)^\s*(?:https?://|ftp://|www\.|//|data:|file:)\S*\s*$"
_CODE = (
    r"(?i)^\s*(?:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{16,}|[\w-]*\d[\w-]{14,}\d[\w-]*|"
    r"[a-z]{0,4}[_ -]?\d[\d _.x-]{3,})\s*$"
)
_STEM = r"^(?:[^?#]*/)?(?P<stem>[^/?#]*?)(?:\.[A-Za-z]{2,5})?(?:[?#].*)?$"


@dataclass(frozen=True, kw_only=True)
class FileNames:
    """Names of files, addresses and codes in the place of a caption.

    "IMG_1234", "DSC00012.JPG", "Screenshot 2024-01-01 at 10.11.12", "https://…", a hash, a UUID, an article number;
    all that ends as a picture's file does; and what is one word with digits, "-" or "_" that is also the name of the
    file in the picture's address. "red car" beside red-car.jpg is a caption.

    Source: Conceptual Captions (Sharma et al., ACL 2018, section 3) and MMC4 drop such by rules of their own.
    """

    kind: Literal["file-names"] = "file-names"
    name: ClassVar[str] = "file-names"
    limit: ClassVar[str] = "no name of a file, no address, no code"

    def judge(self, captions: Captions, /) -> Verdict:
        texts, text = captions.texts, captions.characters
        named = pc.or_(pc.match_substring_regex(texts, _PICTURE_NAME), pc.match_substring_regex(texts, _CAMERA_NAME))
        named = named.to_numpy(zero_copy_only=False)
        signs = np.isin(text.codes, np.frombuffer("-_.".encode("utf-32-le"), np.uint32)) | ((text.flags & DIGIT) != 0)
        # What is one word of letters alone can be no code, and the rest is little: only that goes through the patterns.
        few = np.flatnonzero(~named & (text.count_where(signs) > 0) & (text.count(SPACE) <= 3))
        some = captions.take(few)
        odd = pc.or_(pc.match_substring_regex(some.texts, _ADDRESS), pc.match_substring_regex(some.texts, _CODE))
        stem = pc.struct_field(pc.extract_regex(some.urls, _STEM), "stem")
        is_stem = pc.equal(pc.utf8_lower(stem), pc.utf8_lower(pc.utf8_trim_whitespace(some.texts)))
        one_word = pc.invert(pc.match_substring_regex(some.texts, r"\S\s+\S"))
        odd = pc.or_(odd, pc.and_(one_word, pc.fill_null(is_stem, False)))
        named[few] = odd.to_numpy(zero_copy_only=False)
        return Verdict(keep=~named, values=lambda at: shown(captions.texts, at))


_MAIL = r"[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}"
_PHONE = (
    r"(?:\+\d{1,3}[ .-]?(?:\(\d{1,4}\)[ .-]?)?\d(?:[ .-]?\d){6,12}\b|"  # international
    r"(?:\b1[ .-])?(?:\(\d{3}\) ?|\b\d{3}[.-])\d{3}[ .-]\d{4}\b|"  # of North America
    r"(?i:\b(?:tel|phone|call|mobile|fax|whatsapp|telefon|tél|teléfono|telefone|telefono|тел|телефон)|电话|電話|電話番号|전화)"
    r"(?:[.:№ ]|at|us|me|now|number|nr)*\(?\d(?:[ ()./-]?\d){6,13}\b)"
)
_PHONE_DIGITS = 7
MASKS = {"[e-mail]": _MAIL, "[phone]": _PHONE}


@dataclass(frozen=True, kw_only=True)
class PersonalData:
    """Captions with e-mail addresses or phone numbers: masked as "[e-mail]" and "[phone]", or dropped.

    Phone numbers are known by "+" and a country's code, by North America's form, or by a word such as "tel" before
    7 to 14 digits; others, and those with other signs between, are not found.

    Source: ROOTS (arXiv:2303.03915, section 4) and Dolma (arXiv:2402.00159) mask the same two by patterns; these are
    ours.
    """

    kind: Literal["personal-data"] = "personal-data"
    action: Literal["drop", "mask"] = "drop"
    name: ClassVar[str] = "personal-data"
    limit: ClassVar[str] = "no e-mail address, no phone number"

    def judge(self, captions: Captions, /) -> Verdict:
        mail = pc.match_substring(captions.texts, "@").to_numpy(zero_copy_only=False)
        at = np.flatnonzero(mail | (captions.characters.count(DIGIT) >= _PHONE_DIGITS))
        texts = captions.texts.take(pa.array(at))
        found = {mask: pc.match_substring_regex(texts, pattern) for mask, pattern in MASKS.items()}
        what = pc.if_else(found["[e-mail]"], "e-mail address", "phone number")
        any_of = pc.or_(*found.values()).to_numpy(zero_copy_only=False)
        hit = np.zeros(len(captions), bool)
        hit[at] = any_of
        if self.action == "mask":
            for mask, pattern in MASKS.items():
                texts = pc.replace_substring_regex(texts, pattern, mask)
            masked = pc.replace_with_mask(captions.texts, pa.array(hit), texts.filter(pa.array(any_of)))
            changed = Captions(masked, captions.urls, captions.languages) if hit.any() else None
            return Verdict(keep=np.ones(len(captions), bool), values=lambda at: [None] * len(at), captions=changed)
        number = np.searchsorted(at, np.arange(len(captions)))
        return Verdict(keep=~hit, values=lambda gone: what.take(pa.array(number[gone])).to_pylist())
