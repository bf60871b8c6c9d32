"""What goes over the wire between the page and its libraries."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, FailFast, Field, Strict

from diptych.serve.browse import ViewFilters
from diptych.serve.messages import PICTURE, Day, Name, UnreadText

Ids = Annotated[list[Annotated[str, Field(max_length=64)]], FailFast(), Field(max_length=5_000)]
_Share = Annotated[float, Strict(False), Field(ge=0, le=1)]
_Degrees = Annotated[float, Strict(False)]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class OfLibrary(_Request):
    """A request to one of the libraries."""

    library: Name = Field("", description="Its name; empty is the first.")


class ViewRequest(OfLibrary):
    """Which pictures, in which order, and which part of them. Without a question it is all, the latest first."""

    query: Name = Field("", description="By the grammar of `diptych search`; a picture is one of the library.")
    like: Name = Field("", description="The id of a picture, for more like it.")
    part: Annotated[tuple[_Share, _Share, _Share, _Share], Strict(False)] | None = Field(
        None, description="Of that picture: left, top, right and bottom, as shares of its sides."
    )
    picture: Name = Field("", description="What `/library/pictures` answered.")
    folder: Name = Field("", description="Below the library's own; what lies deeper passes as well.")
    camera: Name | None = Field(None, description="As the facets name it; empty is none that is told.")
    country: Name | None = Field(None, description="As the facets name it.")
    after: Day | None = Field(None, description="Taken on this day or later.")
    before: Day | None = Field(None, description="Taken before this day.")
    kind: Literal["", "picture", "video"] = Field("", description="Only these.")
    min_side: int = Field(0, ge=0, le=1_000_000, description="Pixels of the longer side.")
    area: Annotated[tuple[_Degrees, _Degrees, _Degrees, _Degrees], Strict(False)] | None = Field(
        None, description="Taken within south, west, north and east, in degrees."
    )
    album: Name | None = Field(None, description="Only those of an album.")
    hidden: bool = Field(False, description="Those that are hidden, instead of the others.")
    sort: Literal["", "latest", "oldest"] = Field("", description="Empty is by score, and without a question latest.")
    start: int = Field(0, ge=0, le=100_000_000, description="The place of the first that is told of.")
    count: int = Field(100, ge=0, le=500, description="At most so many are told of.")
    find: Name = Field("", description="The id of a picture whose place in the view is wanted.")
    spread: bool = Field(False, description="Whether to count months, folders, cameras and so on.")

    def asked(self) -> ViewFilters:
        """Which pictures pass, as a library takes it."""
        return ViewFilters(
            folder=self.folder,
            camera=self.camera,
            country=self.country,
            after=_whole(self.after),
            before=_whole(self.before),
            kind=self.kind,
            min_side=self.min_side,
            area=self.area,
            album=self.album,
            hidden=self.hidden,
            oldest_first=self.sort == "oldest",
            by_date=bool(self.sort),
        )


def _whole(day: str | None) -> str:
    """With two digits of each part."""
    return "-".join(part.zfill(2) for part in day.split("-")) if day else ""


class SeenPicture(BaseModel):
    """A picture of a library."""

    id: str = Field(description="The same after a restart.")
    name: str = Field(description="The file, below the library's folder.")
    score: float | None = Field(description="Cosine with what was looked for, -1 to 1.")
    width: int = Field(description="Pixels, upright; 0 when not known.")
    height: int
    when: str = Field(description="When it was taken, local time of the camera; else when the file was written.")
    is_taken: bool = Field(description="Which of the two.")
    camera: str | None
    place: list[float] | None = Field(description="Latitude and longitude.")
    country: str | None = Field(description="By a coarse outline.")
    bytes: int
    is_video: bool
    time: float | None = Field(description="Seconds into a video, of the frame that fits best.")
    thumbnail: str
    picture: str
    original: str


# Each a name and a number; as lists, since a description of tuples is one that not all readers take.
Counts = list[list[str | int]]


class SpreadOfView(BaseModel):
    """How many of a view are of each."""

    months: Counts = Field(description="In the order of the view, where that is by date.")
    folders: Counts = Field(description="Directly below the folder that was asked for.")
    cameras: Counts
    years: Counts
    countries: Counts
    kinds: Counts
    albums: Counts
    placed: int = Field(description="That tell where they were taken.")


class TermOfQuery(BaseModel):
    """One part of a query, as it is read."""

    weight: float
    text: str
    is_picture: bool
    unknown: list[str] = Field(description="Words that the model does not know.")


class Placed(BaseModel):
    place: int = Field(description="In the view; -1 when it is not in it.")
    picture: SeenPicture


class ViewAnswer(BaseModel):
    version: int = Field(description="Another one when the library has changed.")
    total: int
    start: int
    pictures: list[SeenPicture]
    spread: SpreadOfView | None
    unread: list[UnreadText]
    liked: SeenPicture | None = Field(description="The picture that others are to be like.")
    found: Placed | None = Field(description="The picture that was to be found; null where the library has none such.")


class QueryRequest(OfLibrary):
    query: Name


class QueryAnswer(BaseModel):
    terms: list[TermOfQuery]
    fault: str = Field(description="Why it is no query yet; empty when it is.")


class PictureRequest(_Request):
    image: str = Field(description=PICTURE)


class PictureAnswer(BaseModel):
    picture: str = Field(description="Stands for it in a view, until the server stops or 256 others came.")


class SpotsAnswer(BaseModel):
    spots: list[list[float | str]] = Field(description="Latitude, longitude, pictures, thumbnail of one.")


class LibraryFacts(BaseModel):
    name: str
    pictures: int
    version: int = Field(description="Another one when the library has changed.")
    is_there: bool = Field(description="Whether its folder is: on a disk that is away, say, it is not.")
    indexing: bool
    done: int = Field(description="Files that were opened of those that had to be.")
    of: int
    folder: str | None = Field(description="Where it lies, for clients on the same machine.")


class LibrariesAnswer(BaseModel):
    libraries: list[LibraryFacts]
    can_trash: bool
    is_local: bool = Field(description="Whether only this machine reaches the server.")


class Shelved(BaseModel):
    name: str
    link: str


class AlbumFacts(BaseModel):
    name: str
    pictures: int


class ShelfAnswer(BaseModel):
    saved: list[Shelved]
    albums: list[AlbumFacts]
    hidden: int


class SaveRequest(OfLibrary):
    name: Name
    link: Annotated[str, Field(max_length=4_000)] = Field(description="Empty forgets it.")


class AlbumRequest(OfLibrary):
    name: Name
    add: Ids = Field(default_factory=list)
    remove: Ids = Field(default_factory=list)
    forget: bool = Field(False, description="Forget the album; its pictures stay.")


class HiddenRequest(OfLibrary):
    hide: Ids = Field(default_factory=list)
    show: Ids = Field(default_factory=list)


class PicturesRequest(OfLibrary):
    """Some pictures, by their ids, or all of an album."""

    ids: Ids = Field(default_factory=list)
    album: Name = ""


class PathsAnswer(BaseModel):
    paths: list[str] = Field(description="Whole where only this machine reaches the server, else below the folder.")


class ZipAnswer(BaseModel):
    path: str = Field(description="On this server, for a quarter of an hour.")


class TrashAnswer(BaseModel):
    moved: int
    faults: list[str]


class AlikeRequest(OfLibrary):
    threshold: float = Field(0.97, gt=0, le=1, description="The smallest cosine of a pair.")
    start: int = Field(0, ge=0)
    count: int = Field(20, ge=1, le=100)


class Copy(SeenPicture):
    """A picture among those that look the same."""

    sharpness: float = Field(description="Standard deviation of the Laplacian of its thumbnail, in grey levels.")
    has_sidecar: bool
    also: list[str] = Field(description="Further names of the same file.")


class AlikeAnswer(BaseModel):
    ready: bool = Field(description="Whether all pairs were compared; else ask again.")
    total: int
    groups: list[list[Copy]] = Field(description="The best of each first.")
