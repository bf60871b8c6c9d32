"""What goes over the wire: requests and answers as the OpenAPI description tells them."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, FailFast, Field, Strict, Tag

from diptych.data.tokenizer import Unread
from diptych.search import filters
from diptych.search.filters import parse_day

PICTURE = (
    "A picture: a data URL (data:image/png;base64,...) or the base64 of a file. A https URL only where the server "
    "allows its host."
)
_PNG = (
    "data:image/png;base64,"
    "iVBORw0KGgoAAAANSUhEUgAAAAIAAAACCAIAAAD91JpzAAAAEElEQVR4nGP4z8AARAwQCgAf7gP9i18U1AAAAABJRU5ErkJggg=="
)


Name = Annotated[str, Field(max_length=1_000)]
# As the command line takes it; a day that no calendar has is refused with the library's own sentence.
Day = Annotated[str, Field(pattern=r"^[0-9]{4}(-[0-9]{1,2}){0,2}$", examples=["2023-06-30", "2023-06", "2023"])]
Lines = Annotated[list[str], FailFast(), Field(min_length=1)]  # the first that does not fit is named, and no other


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)  # a misspelt option is not passed over, nor "yes" for true


class Image(_Request):
    """A picture among inputs."""

    image: str = Field(description=PICTURE, examples=[_PNG])


class Text(_Request):
    """A text among inputs; the same as the bare string."""

    text: str


def _kind(value: Any) -> str:
    """Which kind of input it is meant to be: by one look, or each alternative would complain of each input."""
    if isinstance(value, dict):
        return "picture" if "image" in value else "object"
    return {Image: "picture", Text: "object"}.get(type(value), "text")


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


Input = str | Image | Text
_OneOfThem = Annotated[
    Annotated[str, Tag("text")] | Annotated[Image, Tag("picture")] | Annotated[Text, Tag("object")],
    Discriminator(_kind),
]
Inputs = Annotated[list[_OneOfThem], FailFast(), BeforeValidator(_listed, json_schema_input_type=Input | list[Input])]


class EmbeddingsRequest(_Request):
    """Texts and pictures to be turned into features."""

    input: Inputs = Field(
        description='A text, {"image": PICTURE}, or a list of these, mixed as you like.',
        examples=["a red apple", ["a red apple", {"image": _PNG}]],
    )
    model: str | None = Field(None, description="Must be the model that this server has, when given.")
    encoding_format: Literal["float", "base64"] | None = Field(
        "float", description="base64: the float32 numbers, little-endian; smaller, and exact."
    )
    dimensions: int | None = Field(
        None, description="Must be the model's own: the first numbers of a CLIP feature are no smaller feature."
    )
    truncate: bool | None = Field(False, description="Cut a text that is too long, instead of refusing it.")
    user: str | None = Field(None, description="Taken for the sake of clients that send it; not looked at.")


class Embedding(BaseModel):
    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str = Field(description="D numbers of unit length together, or their base64.")


class Usage(BaseModel):
    prompt_tokens: int = Field(description="Tokens of the texts, start and end included; pictures count none.")
    total_tokens: int


class UnreadText(BaseModel):
    """A text of which the model does not know all words: to it they are one and the same unknown one."""

    text: str
    words: int = Field(description="That it has, as the tokenizer splits them.")
    unknown: int = Field(description="Of them, those that the model does not know.")
    message: str = Field(description="The same as a sentence.")

    @classmethod
    def of(cls, text: Unread) -> "UnreadText":
        return cls(text=text.text, words=text.words, unknown=text.unknown, message=str(text))


class EmbeddingsAnswer(BaseModel):
    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: Usage
    unread: list[UnreadText] = Field(
        default_factory=list, description="Texts of which some words are unknown; only there where there are any."
    )


class Model(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int = Field(description="Seconds since 1970 at which the server started.")
    owned_by: str = "diptych"
    dimensions: int = Field(description="Numbers of one feature.")
    image_size: int = Field(description="Pixels of one side that the model sees.")
    context_length: int = Field(description="Tokens of a text, start and end included.")


class ModelsAnswer(BaseModel):
    object: Literal["list"] = "list"
    data: list[Model]


class ClassifyRequest(_Request):
    """A picture, and labels to choose from."""

    image: str = Field(description=PICTURE, examples=[_PNG])
    labels: Lines = Field(description="Any words, each once.", examples=[["red", "blue"]])
    templates: Lines = Field(["{}"], description="Prompt templates with one {} for the label; a label is their mean.")


class Share(BaseModel):
    label: str
    probability: float


class ClassifyAnswer(BaseModel):
    model: str
    labels: list[Share] = Field(
        description="Best first. A softmax over these labels, so they add up to 1; of a SigLIP model each by itself."
    )
    unread: list[UnreadText] = Field(description="Labels of which some words are unknown. None are, with most models.")


class Filters(_Request):
    """What a picture must be to be found. One that does not tell (no date, no place) does not pass that filter."""

    folder: Name = Field("", description="Below the library's own, e.g. 2023/june.")
    after: Day | None = Field(None, description="Taken on this day or later.")
    before: Day | None = Field(None, description="Taken before this day.")
    min_side: int = Field(0, ge=0, le=1_000_000, description="Pixels of the longer side.")
    max_side: int = Field(0, ge=0, le=1_000_000, description="Pixels of the longer side; 0 is no limit.")
    camera: Name = Field("", description="Part of maker and model.")
    near: Annotated[tuple[float, float, float], Strict(False)] | None = Field(
        None, description="Latitude and longitude in degrees, and kilometres around.", examples=[[48.86, 2.35, 10]]
    )

    def for_library(self) -> filters.Filters:
        """As a search library takes them.

        Raises:
            ConfigError: a day or a place makes no sense.
        """
        options = self.model_dump()
        for name in ("after", "before"):
            options[name] = None if options[name] is None else parse_day(options[name])
        return filters.Filters(**options)


class SearchRequest(_Request):
    """What to look for: words, a picture, or both added up; or more like one that was found."""

    text: str | None = Field(None, description="Words.", examples=["a red apple"])
    image: str | None = Field(None, description=PICTURE)
    like: Name | None = Field(None, description="The id of a picture that was found, for more like it; goes by itself.")
    without: str | None = Field(None, description="Words that are taken away.")
    count: int = Field(20, ge=1, description="At most so many.")
    filters: Filters = Field(default_factory=Filters.model_construct)


class WhyRequest(_Request):
    """What a picture was found by."""

    text: str = Field(min_length=1, description="Words.", examples=["a red apple"])


class Found(BaseModel):
    id: str = Field(description="Holds until the server stops.")
    score: float = Field(description="Cosine with what was looked for, -1 to 1; says little by itself.")
    name: str = Field(description="The file, below the library's folder.")
    width: int = Field(description="Pixels, upright; 0 when not known.")
    height: int
    taken: str | None = Field(None, description="When, by its EXIF; local time of the camera.")
    camera: str | None = None
    time: float | None = Field(None, description="Seconds into a video.")
    thumbnail: str = Field(description="Path of a small picture on this server.")
    picture: str = Field(description="Path of a large one.")


class SearchAnswer(BaseModel):
    model: str
    results: list[Found]
    unread: list[UnreadText] = Field(description="Texts of the question of which some words are unknown.")


class HealthAnswer(BaseModel):
    status: Literal["ok", "failing"]
    model: str
    library: int | None = Field(description="Pictures that can be found; null without a library.")
    indexing: bool = Field(False, description="Whether the library is being indexed, and there will be more.")
    reason: str | None = None


class ErrorDetail(BaseModel):
    message: str = Field(description="What must hold, what came, what to do.")
    type: str
    param: str | None = Field(description="The part of the request that it is about.")
    code: str = Field(description="Short and stable, for programs.")


class ErrorAnswer(BaseModel):
    """Any error, on any route."""

    error: ErrorDetail


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What a route may answer besides 200, for its description."""
    meanings = {
        400: "What you sent cannot be used; the message says why.",
        401: "An API key is needed.",
        403: "Another site's page asked.",
        404: "There is no such thing.",
        408: "The request arrived too slowly.",
        416: "The file has no such part.",
        413: "The request or a picture is too large.",
        421: "The server was called by a name that is not its own.",
        429: "The server has no room; Retry-After says in how many seconds to try again.",
        503: "No answer in time, or the model fails.",
    }
    return {status: {"description": meanings[status], "model": ErrorAnswer} for status in statuses}
