"""What an index knows and its folder no longer shows: which of it is deleted, and which may only be away."""

from pathlib import Path

from diptych.data.walk import Walk
from diptych.errors import DataError
from diptych.files import shown
from diptych.search.about import path_of
from diptych.search.store import Known

_MANY = 100  # files gone at once from which half of the index is too many to forget unasked


class Gone:
    """Files that are known and were not found.

    Args:
        folder: the pictures.
        walk: what was found there.
        known: all known files, by path.
        mounts: folders that lay on another disk at the last update, as text; "" is the folder itself.
    """

    def __init__(self, folder: Path, walk: Walk, known: dict[str, Known], mounts: list[str]) -> None:
        self._folder, self._walk = folder, walk
        self._known = sum(one.has_rows for one in known.values())
        self.waiting = {one.id: path for path, one in known.items() if path not in walk.files}
        self.kept: dict[str, int] = {}  # how many may only be away and are not forgotten, by why
        self.unseen = 0  # how many cannot be looked at, so that nobody knows whether they are gone
        self._away = {mount for mount in map(path_of, mounts) if mount not in walk.mounts}
        self._still_away: set[str] = set()

    def refuse_all(self, *, forget: bool) -> None:
        """Stop before anything is done when nothing that is known is there, nor anything else.

        Raises:
            DataError: it is so, and nobody said that all shall be forgotten.
        """
        lost = [path for path in self.waiting.values() if not self._is_unseen(path) and not self._is_left_out(path)]
        if lost and self._known and not self._walk.files and not forget:
            raise DataError(
                f"{shown(self._folder)} holds no picture any more, and {self._known:,} are in its index: is its disk "
                "mounted? Nothing was forgotten. If they are gone for good, add --forget to diptych index update."
            )

    def to_forget(self, *, forget: bool) -> list[str]:
        """Those to be forgotten; the others are counted in `kept` and `unseen`.

        Args:
            forget: also those that may only be away with their disk.
        """
        certain: list[str] = []
        deleted: list[str] = []
        for path in self.waiting.values():
            if self._is_unseen(path):
                self.unseen += 1
            elif away := None if forget else self._place_away(path):
                self._keep(away)
            elif self._is_left_out(path):
                certain.append(path)  # somebody said so
            else:
                deleted.append(path)
        if len(deleted) >= _MANY and 2 * len(deleted) > self._known and not forget:
            self._keep("more than half of the index is gone at once", len(deleted))
            deleted = []
        return certain + deleted

    def mounts(self) -> set[str]:
        """Folders to be looked for on another disk at the next update."""
        return self._walk.mounts | self._still_away

    def _is_unseen(self, path: str) -> bool:
        """Whether a file is there and cannot be looked at, or lies in a folder that cannot be listed."""
        return path in self._walk.unread or any(one in self._walk.faults for one in (path, *_folders_above(path)))

    def _is_left_out(self, path: str) -> bool:
        return any(above in self._walk.left_out for above in (path, *_folders_above(path)))

    def _place_away(self, path: str) -> str | None:
        for above in ("", *_folders_above(path)):
            if above in self._away:
                self._still_away.add(above)
                return f"{shown(self._folder / above)} is no disk of its own any more"
            if above in self._walk.empty:
                return f"{shown(self._folder / above)} is empty"
        return None

    def _keep(self, reason: str, count: int = 1) -> None:
        self.kept[reason] = self.kept.get(reason, 0) + count


def _folders_above(path: str) -> list[str]:
    """The folders that a path lies in, each with "/" at its end."""
    return [path[: i + 1] for i, letter in enumerate(path) if letter == "/"]
