"""Files from the web, whole or not at all.

A download has its name only after its size and MD5 were compared with what is published; until then it is a
draft beside it. Whatever went wrong, the same call starts that file anew and keeps those that are whole.
Errors: PixmedError with what was expected and what came.
"""

import hashlib
import http.client
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from pixmed_jax.errors import PixmedError
from pixmed_jax.progress import watched

_BLOCK = 2**20
_PATIENCE = 60  # seconds without a byte


class Remote(NamedTuple):
    """A published file: its name, where it is, bytes, and MD5 in hexadecimal digits."""

    name: str
    url: str
    size: int
    md5: str


def fetch(remote: Remote, folder: Path) -> Path:
    """The file in `folder`, downloaded unless it is there and whole."""
    path = folder / remote.name
    if path.is_file() and fault(path, remote) is None:
        return path
    draft = folder / f"{remote.name}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _download(remote, draft)
        wrong = fault(draft, remote)
        if wrong is not None:
            raise PixmedError(
                f"{remote.url}: {wrong}; run it again, or put {remote.name} into {folder} yourself"
            )
        draft.replace(path)
    except OSError as error:
        raise PixmedError(
            f"{draft}: cannot be written ({error.strerror}); free space, or set data.dir"
        ) from error
    finally:
        draft.unlink(missing_ok=True)
    return path


def fault(path: Path, remote: Remote) -> str | None:
    """How a file differs from what is published, or None."""
    with path.open("rb") as file:
        start = file.read(512).lstrip().lower()
        size = path.stat().st_size
        if start.startswith((b"<!doctype", b"<html", b"<?xml")):
            return f"expected {remote.name} of {remote.size} bytes, got a web page of {size}"
        if size != remote.size:
            what = "cut short" if size < remote.size else "another file"
            return f"expected {remote.size} bytes, got {size} ({what})"
        file.seek(0)
        digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    return None if digest == remote.md5 else f"expected MD5 {remote.md5}, got {digest}"


def _download(remote: Remote, draft: Path) -> None:
    request = urllib.request.Request(remote.url, headers={"User-Agent": "pixmed-jax"})
    try:
        with urllib.request.urlopen(request, timeout=_PATIENCE) as response, draft.open("wb") as file:
            total = -(-remote.size // _BLOCK)
            for block in watched(_blocks(response, remote.size), total, f"downloading {remote.name}"):
                file.write(block)
    except urllib.error.HTTPError as error:
        raise PixmedError(
            f"{remote.url}: expected {remote.name}, got HTTP {error.code}; try again later"
        ) from error
    except http.client.IncompleteRead:
        return  # `fault` tells how much came
    except (urllib.error.URLError, TimeoutError, ConnectionError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise PixmedError(
            f"{remote.url}: no answer ({reason}); run it again, or put {remote.name} into {draft.parent} "
            "yourself"
        ) from error


def _blocks(response: IO[bytes], size: int) -> Iterator[bytes]:
    """The body, of which no more is taken than one block too much."""
    taken = 0
    while taken <= size and (block := response.read(_BLOCK)):
        taken += len(block)
        yield block
