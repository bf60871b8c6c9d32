import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from diptych.config import apply_overrides, from_dict, read_toml, to_dict, to_toml, unknown_name
from diptych.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Circle:
    kind: Literal["circle"] = "circle"
    radius: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Square:
    kind: Literal["square"] = "square"
    side: int


@dataclass(frozen=True, kw_only=True)
class Ink:
    colour: Literal["black", "red"] = "black"
    dots: tuple[int, ...] = (1, 2)
    layers: tuple[Circle, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Drawing:
    title: str
    shape: Circle | Square = field(default_factory=Circle)
    ink: Ink = field(default_factory=Ink)
    scale: float = 1.0
    copies: int = 1
    signed: bool = False
    folder: Path | None = None
    weights: dict[str, float] = field(default_factory=dict)


FULL = Drawing(
    title='a "quoted" \\ title,\nÅ',
    shape=Square(side=3),
    ink=Ink(colour="red", dots=(4, 5, 6)),
    scale=1e-5,
    signed=True,
    folder=Path("some/where"),
    weights={"a": 0.5, "b-c": 2.0},
)


def test_defaults_fill_what_is_not_given():
    assert from_dict(Drawing, {"title": "t"}) == Drawing(title="t")


def test_nested_tables_lists_and_numbers_become_what_the_class_says():
    drawing = from_dict(
        Drawing, {"title": "t", "scale": 2, "folder": "x", "ink": {"dots": [7], "layers": [{"radius": 3}]}}
    )
    assert drawing == Drawing(title="t", scale=2.0, folder=Path("x"), ink=Ink(dots=(7,), layers=(Circle(radius=3.0),)))
    assert isinstance(drawing.scale, float)
    assert isinstance(drawing.ink.layers[0].radius, float)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            {"titel": "t"},
            r"^titel is not an option\. Did you mean title\? Options: copies, folder, ink, .*, weights\.$",
        ),
        ({"title": "t", "ink": {"color": "red"}}, r"^ink\.color is not an option\. Did you mean ink\.colour\?"),
        ({"title": "t", "zzz": 1}, r"^zzz is not an option\. Options: "),
        ({}, r"^title must be given and has no default\.$"),
        ({"title": "t", "shape": {"kind": "square"}}, r"^shape\.side must be given"),
    ],
)
def test_unknown_and_missing_keys_are_named(data, message):
    with pytest.raises(ConfigError, match=message):
        from_dict(Drawing, data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"copies": "2"}, r"copies must be a whole number\. Got '2'"),
        ({"copies": 2.0}, r"copies must be a whole number\. Got 2\.0"),
        ({"copies": True}, r"copies must be a whole number\. Got True"),
        ({"scale": "1"}, r"scale must be a number"),
        ({"scale": False}, r"scale must be a number"),
        ({"signed": 1}, r"signed must be true or false"),
        ({"title": 3}, r"title must be a string"),
        ({"folder": 3}, r"folder must be a path\. Got 3"),
        ({"ink": 3}, r"ink must be a table\. Got 3"),
        ({"ink": {"colour": "blue"}}, r"ink\.colour must be one of 'black', 'red'\. Got 'blue'"),
        ({"ink": {"dots": 3}}, r"ink\.dots must be a list, each item a whole number"),
        ({"ink": {"dots": [1, "x"]}}, r"ink\.dots\[1\] must be a whole number\. Got 'x'"),
        ({"weights": {"a": "x"}}, r"weights\.a must be a number"),
        ({"shape": 3}, r"shape must be a table.*Got 3"),
    ],
)
def test_values_of_another_type_are_named(data, message):
    with pytest.raises(ConfigError, match=message):
        from_dict(Drawing, {"title": "t"} | data)


def test_the_kind_chooses_the_class_of_a_union():
    def shape(table):
        return from_dict(Drawing, {"title": "t", "shape": table}).shape

    assert shape({"kind": "square", "side": 2}) == Square(side=2)
    assert shape({"kind": "circle", "radius": 2}) == Circle(radius=2.0)
    assert shape({"radius": 2}) == Circle(radius=2.0)  # the first class, where the kind is not said
    with pytest.raises(ConfigError, match=r"shape\.side is not an option.*Options: kind, radius"):
        shape({"side": 2})
    for kind in ("cube", ["square"]):
        with pytest.raises(ConfigError, match=r"shape\.kind must be one of 'circle', 'square'\. Got .*(cube|square)"):
            shape({"kind": kind})


def test_messages_begin_where_the_caller_says():
    with pytest.raises(ConfigError, match=r"^train\.ink\.dot is not an option\. Did you mean train\.ink\.dots\?"):
        from_dict(Drawing, {"title": "t", "ink": {"dot": []}}, where="train")


def test_toml_reads_back_equal():
    for drawing in (FULL, Drawing(title="")):
        assert from_dict(Drawing, tomllib.loads(to_toml(drawing))) == drawing


def test_what_is_printed_is_complete_but_for_none():
    assert to_dict(Drawing(title="t")) == {
        "title": "t",
        "shape": {"kind": "circle", "radius": 1.0},
        "ink": {"colour": "black", "dots": [1, 2], "layers": []},
        "scale": 1.0,
        "copies": 1,
        "signed": False,
        "weights": {},
    }


def test_overrides_are_toml_values_else_strings():
    data = {"title": "t", "ink": {"dots": [1]}}
    merged = apply_overrides(
        data, ["ink.dots=[2, 3]", "scale=1e-3", "signed=true", "title=a plain title", "shape.radius=2"]
    )
    assert merged == {
        "title": "a plain title",
        "ink": {"dots": [2, 3]},
        "scale": 0.001,
        "signed": True,
        "shape": {"radius": 2},
    }
    assert data == {"title": "t", "ink": {"dots": [1]}}  # what came in is left alone


@pytest.mark.parametrize(
    ("option", "message"),
    [("title", "takes key=value"), ("=3", "takes key=value"), ("title.x=3", "title is a value, not a table")],
)
def test_overrides_that_fit_nowhere_are_refused(option, message):
    with pytest.raises(ConfigError, match=message):
        apply_overrides({"title": "t"}, [option])


def test_a_recipe_that_cannot_be_read_is_named(tmp_path):
    path = tmp_path / "recipe.toml"
    with pytest.raises(ConfigError, match=r"recipe\.toml must be a recipe file, and no such file exists"):
        read_toml(path)
    path.write_text("a = ")
    with pytest.raises(ConfigError, match=r"recipe\.toml must be TOML: "):
        read_toml(path)
    path.write_bytes(b"a = '\xff'")
    with pytest.raises(ConfigError, match=r"recipe\.toml cannot be read as a recipe"):
        read_toml(path)
    path.write_text("a = 1")
    assert read_toml(path) == {"a": 1}


def test_the_nearest_name_is_offered_only_when_one_is_near():
    assert unknown_name("catz", "", ["dogs", "cats"], "a pet") == (
        "catz is not a pet. Did you mean cats? Options: cats, dogs."
    )
    assert unknown_name("x", "", ["dogs"], "a pet") == "x is not a pet. Options: dogs."
