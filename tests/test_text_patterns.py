"""captions/text_patterns.py: names of files and codes, and what tells of a person."""

import pyarrow as pa
import pytest

from diptych.captions.text_patterns import FileNames, PersonalData
from pair_tables import captions_of, kept_by, measured_by


@pytest.mark.parametrize(
    "text",
    [
        "IMG_1234.jpg",
        "IMG_1234",
        "img 1234 copy",
        "DSC00012",
        "DSCN0034-edited",
        "P1000123",
        "PXL_20210101_123456789",
        "IMG-20200101-WA0001",
        "WhatsApp Image 2021-05-06 at 10.11.12",
        "screenshot-2024-01-01.png",
        "Screenshot 2024-01-01 at 10.11.12",
        "Screen Shot 2021-03-04 at 9.12.33 AM",
        "Bildschirmfoto 2021-03-04 um 10.11.12",
        "Captura de pantalla 2021-05-06 a las 10.11.12",
        "Снимок экрана 2021-05-06 в 10.11.12",
        "スクリーンショット 2021-05-06 10.11.12",
        "a red car.JPEG ",
        "https://a.example/c?id=3",
        "www.example.com/pic",
        "data:image/png;base64,iVBORw0KGgo=",
        "d41d8cd98f00b204e9800998ecf8427e",
        "123e4567-e89b-12d3-a456-426614174000",
        "AB-12345-67",
        "1920x1080",
    ],
)
def test_names_of_files_addresses_and_codes_are_dropped(text):
    assert kept_by(FileNames(), text) == [False]
    assert measured_by(FileNames(), text) == text


@pytest.mark.parametrize(
    "text",
    [
        "a red car",
        "photo 1234 a dog runs in snow",
        "Screenshot of the game with 3 players",
        "Boeing 747-400",
        "A man with the number 10 on his shirt",
        "Room 101",
        "T-shirt",
        "sunset",
        "see www.example.com for 3 more",
        "the 2019-2020 season",
        "小狗在雪地里跑",
        "",
    ],
)
def test_captions_with_numbers_and_signs_are_kept(text):
    assert kept_by(FileNames(), text) == [True]


def test_one_word_that_is_the_name_of_the_file_is_dropped():
    url = "https://a.example/x/Red-car_2.final.jpg?w=100#top"
    assert kept_by(FileNames(), "red-car_2.final", "Red-car_2", "red car", url=url) == [False, True, True]
    assert kept_by(FileNames(), "a-b", url="https://a.example/a-b.png") == [False]
    assert kept_by(FileNames(), "a-b", url="https://a.example/a-b/c.png") == [True]
    assert kept_by(FileNames(), "a-b", url=None) == [True]


@pytest.mark.parametrize(
    ("text", "what", "masked"),
    [
        ("write to Jo.e+x@mail.example.co.uk now", "e-mail address", "write to [e-mail] now"),
        ("call +49 30 1234567 now", "phone number", "call [phone] now"),
        ("(212) 555-1234 best pizza", "phone number", "[phone] best pizza"),
        ("pizza, 1-800-555-1234.", "phone number", "pizza, [phone]."),
        ("+1 (415) 555-2671", "phone number", "[phone]"),
        ("電話 03-1234-5678 まで", "phone number", "[phone] まで"),
    ],
)
def test_what_tells_of_a_person_is_dropped_or_masked(text, what, masked):
    drop, mask = PersonalData(), PersonalData(action="mask")
    assert (kept_by(drop, text), measured_by(drop, text)) == ([False], what)
    verdict = mask.judge(captions_of("a dog", text))
    assert verdict.keep.tolist() == [True, True]
    assert verdict.captions is not None
    assert verdict.captions.texts.to_pylist() == ["a dog", masked]


@pytest.mark.parametrize(
    "text",
    [
        "follow @example on 2021-05-06 at 10:11",
        "ISBN 978-3-16-148410-0",
        "1,234,567 people",
        "2019-01-01 12:00:33",
        "a@b",
        "the 1914-1918 and 1939-1945 wars",
    ],
)
def test_dates_numbers_and_names_are_no_personal_data(text):
    assert kept_by(PersonalData(), text) == [True]
    assert PersonalData(action="mask").judge(captions_of(text)).captions is None


def test_no_caption_at_all_is_judged():
    for rule in (FileNames(), PersonalData(), PersonalData(action="mask")):
        assert rule.judge(captions_of()).keep.tolist() == []


def test_the_url_column_may_be_of_nulls_alone():
    captions = captions_of("AB-12345-67", "a dog 3")
    assert captions.urls.type == pa.string()
    assert FileNames().judge(captions).keep.tolist() == [False, True]
