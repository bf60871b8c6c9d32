"""Shards behind a URL: fetched whole through fsspec, checked, and kept in a cache of limited size."""

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diptych.errors import ConfigError, ShardError, missing_extra
from diptych.files import expanded, waiting_lock
from diptych.files import sha256 as sha256_of

_CHUNK = 8 * 2**20  # bytes a request; what is fetched survives a failure in steps of it
_GB = 10**9


@dataclass(frozen=True, kw_only=True)
class RemoteConfig:
    """How shards behind URLs are fetched and kept. None of it changes what a run sees."""

    cache: str = "~/.cache/diptych/shards"  # folder; processes of one machine share it
    cache_gb: float = 100.0  # 10^9 bytes; what was not used for longest goes first
    attempts: int = 4  # at each request, the first one included
    timeout: float = 60.0  # seconds, of one request for up to 8 MiB
    pause: float = 1.0  # seconds before the second attempt; doubled before each further one

    def __post_init__(self) -> None:
        if self.attempts < 1 or not (self.cache_gb > 0 and self.timeout > 0 and self.pause >= 0):
            raise ConfigError(
                "data.remote.attempts must be at least 1, cache_gb and timeout above 0, pause not negative. "
                f"Got {self.attempts}, {self.cache_gb}, {self.timeout} and {self.pause}."
            )


def is_remote(path: str) -> bool:
    """Whether a path is a URL, e.g. "s3://bucket/folder"."""
    return "://" in path


class RemoteFolder:
    """The files of a folder behind a URL. Safe in many threads and processes.

    Args:
        url: of the folder, in any scheme that fsspec knows.
        config: how to fetch and keep.

    Raises:
        MissingExtraError: fsspec, or what it needs for this scheme, is not installed.
        ShardError: fsspec does not know the scheme.
    """

    def __init__(self, url: str, config: RemoteConfig) -> None:
        try:
            import fsspec

            self._files: Any
            self._files, root = fsspec.url_to_fs(url)
        except ImportError as error:
            raise missing_extra(f"reading {url}", "remote", "Shards on a local disk are read without it.") from error
        except ValueError as error:
            raise ShardError(f"{url} must be a URL that fsspec reads: {error}.") from error
        self.url = url.rstrip("/")
        self._root = root.rstrip("/")
        self._config = config
        self._cache = expanded(config.cache)

    def read(self, name: str) -> bytes:
        """A small file, whole.

        Raises:
            ShardError: it is missing, or cannot be fetched.
        """
        return self._request(name, None, None)

    def fetch(self, name: str, size: int, sha256: str) -> Path:
        """A file in the cache, fetched when it is not there: whole and checked, or absent.

        Args:
            name: of the file.
            size: bytes.
            sha256: hexadecimal; with the name, what it is known by in the cache.

        Raises:
            ShardError: it is missing, cannot be fetched, or is not what size and hash say; or the cache cannot be
                written.
        """
        path = self._cache / f"{sha256[:32]}-{name.replace('/', '-')}"
        try:
            self._cache.mkdir(parents=True, exist_ok=True)
            with waiting_lock(path.with_name(f".{path.name}.lock")):
                if not path.is_file():
                    self._download(name, size, sha256, path)
            os.utime(path)  # the cache lets go of what was used longest ago
            return path
        except OSError as error:
            raise ShardError(
                f"{self._cache} must be a folder to keep shards in, and cannot be written: {error.strerror}. Choose "
                "another one (data.remote.cache).",
                "cache cannot be written",
            ) from error

    def _download(self, name: str, size: int, sha256: str, path: Path) -> None:
        part = path.with_name(f".{path.name}.part")  # of a process that was killed, too: it is gone on with
        for last in [False] * (self._config.attempts - 1) + [True]:
            with part.open("ab") as file:
                if file.tell() > size:
                    file.truncate(0)
                while (start := file.tell()) < size:
                    file.write(self._chunk(name, start, min(start + _CHUNK, size), size))
                file.flush()
                os.fsync(file.fileno())
            if sha256_of(part) == sha256:
                break
            part.unlink()
            if last:
                raise ShardError(
                    f"{self.url}/{name} is not the file that its manifest lists: its SHA-256 differs, "
                    f"{self._config.attempts} times. Write the manifest anew, or upload the shard again.",
                    f"{name} has a wrong checksum",
                )
        part.replace(path)
        self._let_go(path)

    def _chunk(self, name: str, start: int, stop: int, size: int) -> bytes:
        content = self._request(name, start, stop)
        return content[start:stop] if len(content) == size else content  # a server that knows no ranges sends all

    def _request(self, name: str, start: int | None, stop: int | None) -> bytes:
        """One answer, whole.

        Raises:
            ShardError: the file is missing, or no attempt gave a whole answer.
        """
        url, pause = f"{self.url}/{name}", self._config.pause
        reason, cause = "", ""
        for attempt in range(self._config.attempts):
            if attempt:
                time.sleep(pause)
                pause *= 2
            try:
                # fsspec bounds the whole request where it runs it in a loop of its own, as for s3 and https.
                bound = {"timeout": self._config.timeout} if self._files.async_impl else {}
                content = self._files.cat_file(f"{self._root}/{name}", start=start, end=stop, **bound)
            except FileNotFoundError as error:
                raise ShardError(f"{url} must be there, and is not. Upload it.", f"{name} is missing") from error
            except ImportError as error:
                raise missing_extra(f"reading {url}", "remote") from error
            except Exception as error:  # each file system raises its own
                timed_out = isinstance(error, TimeoutError)
                reason = f"no answer within {self._config.timeout:g} s" if timed_out else _words(error)
                cause = f"{name} timed out" if timed_out else f"{name} cannot be fetched"
                continue
            if start is None or stop is None or len(content) >= stop - start:
                return content
            reason, cause = f"the answer has {len(content):,} of {stop - start:,} bytes", f"{name} ended early"
        raise ShardError(
            f"{url} cannot be fetched, in {self._config.attempts} attempts: {reason}. Look at the network and the "
            "server, or raise data.remote.attempts.",
            cause,
        )

    def _let_go(self, newest: Path) -> None:
        """Remove what was used longest ago until the cache fits its limit; never the newest file."""
        kept = []
        for path in self._cache.glob("[!.]*"):
            with contextlib.suppress(FileNotFoundError):  # another process was faster
                facts = path.stat()
                kept.append((facts.st_mtime, facts.st_size, path))
        total = sum(size for _, size, _ in kept)
        for _, size, path in sorted(kept):
            if total <= self._config.cache_gb * _GB:
                return
            if path != newest:
                path.unlink(missing_ok=True)
                total -= size


def _words(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
