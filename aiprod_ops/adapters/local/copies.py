"""The folders of copies: claimed by a name, marked as ours from the first moment, deleted with all that is in them."""

import json
import os
import re
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from aiprod_ops.errors import ConfigurationError, Refused

MARKER = "copy.json"
_LARGE = 1 << 20


def claim(copies: Path, name: str, sockets: Path) -> Path:
    """Make the copy's folder, marked as one from its first moment but one."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ConfigurationError(f"{name!r} is not a name for a copy: letters, digits, '.', '_' and '-' only")
    folder = copies / name
    try:
        folder.mkdir(mode=0o711)
    except FileExistsError as error:
        raise Refused(f"there is a copy named {name} already in {copies}") from error
    text = json.dumps({"pid": os.getpid(), "sockets": str(sockets), "created": time.time()})
    (folder / MARKER).write_text(text, encoding="utf-8")
    return folder


def is_copy(folder: Path) -> bool:
    # An empty folder is a copy whose maker was killed before it wrote the marker.
    return folder.is_dir() and ((folder / MARKER).exists() or not any(folder.iterdir()))


def has_maker(folder: Path) -> bool:
    """Whether the process that made a copy is still there, as far as its number tells."""
    try:
        return Path("/proc", str(json.loads((folder / MARKER).read_text(encoding="utf-8"))["pid"])).exists()
    except (OSError, ValueError, KeyError):
        return False


def delete(folder: Path) -> None:
    """Delete a stopped copy, its tablespaces, and its sockets where they had to live elsewhere."""
    try:
        sockets = json.loads((folder / MARKER).read_text(encoding="utf-8"))["sockets"]
        shutil.rmtree(sockets, ignore_errors=True)
    except (OSError, ValueError):
        pass  # killed before it was marked: then there are no sockets either
    _unlink_large(folder)
    while folder.exists():
        try:
            shutil.rmtree(folder)
        except FileNotFoundError:
            continue  # another run deletes it at the same time


def _unlink_large(folder: Path) -> None:
    """What takes time: the pages of a file are given back one by one, and those that are on their way to the disk are
    waited for."""
    large = [
        path
        for parent, _, names in os.walk(folder)
        for path in (Path(parent, name) for name in names)
        if _bytes(path) >= _LARGE
    ]
    with ThreadPoolExecutor(2) as pool:
        for _ in pool.map(lambda path: path.unlink(missing_ok=True), large):
            pass


def _bytes(path: Path) -> int:
    try:
        return path.lstat().st_size
    except FileNotFoundError:
        return 0  # another run deletes it at the same time
