"""Files that are either whole or absent: everything is written beside its target and renamed."""

from __future__ import annotations

import glob
import hashlib
import os
import shutil
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from caloforge.errors import RequestError

__all__ = ["atomic_path", "claimed_folder", "digest", "locked", "read_toml", "require_writable"]


def require_writable(folder: Path) -> None:
    """Create `folder` if needed and prove that a file can be made in it.

    Raises `RequestError` if it cannot be created or written, before any work is done.
    """
    probe = folder / f".caloforge-probe-{os.getpid()}-{threading.get_ident()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        reason = error.strerror or error
        raise RequestError(f"cannot write in '{folder}': {reason}; choose another place") from None


@contextmanager
def claimed_folder(folder: Path) -> Iterator[None]:
    """Prove that `folder` can be written; if the work fails, remove it again where it was made.

    Raises `RequestError` if it cannot be written.
    """
    missing = [p for p in (folder, *folder.parents) if not p.exists()]
    try:
        require_writable(folder)
        yield
    except BaseException:
        for made in missing:
            if made.is_dir() and not any(made.iterdir()):
                made.rmdir()
        raise


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling of `path` that replaces it on success and vanishes on error.

    The sibling may be written as a file, or made a folder where `path` is none yet. Siblings that
    killed processes left are removed. Raises `RequestError` if the parent cannot be written or
    `path` is an existing folder.
    """
    if path.is_dir():
        raise RequestError(f"'{path}' is a folder; name a file")
    with claimed_folder(path.parent):
        for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
            if not _alive(left.name.split(".")[-2]):
                _remove(left)
        sibling = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        _remove(sibling)
        try:
            yield sibling
            sibling.replace(path)
        finally:
            _remove(sibling)


def _alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder for this process; raises `RequestError` when another one works in it.

    The lock goes with the process, however it ends. Without effect where there is no ``fcntl``.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    with (folder / "lock").open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RequestError(f"another process is working in '{folder}': wait for it") from None
        yield


def digest(*files: Path) -> str:
    """SHA-256 of the contents of files, one after the other."""
    found = hashlib.sha256()
    for file in files:
        found.update(file.read_bytes())
    return found.hexdigest()


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """Read a TOML file; `what` it is, such as "recipe", is said in the `RequestError`s."""
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError:
        raise RequestError(f"there is no {what} '{path}'; correct the path") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RequestError(f"{what} '{path}' is no valid TOML: {error}") from None


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
