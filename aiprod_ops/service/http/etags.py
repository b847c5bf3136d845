"""Versions of representations: what has not changed is not sent again, and what has is not overwritten unseen.

Source: RFC 9110, sections 8.8.3 (ETag), 13.1.1 (If-Match), 13.1.2 (If-None-Match).
"""

import hashlib
import re
from typing import Annotated

from fastapi import Header
from pydantic import BaseModel

from aiprod_ops.service.http.problems import Problem

IfMatch = Annotated[str | None, Header(alias="If-Match", description="The ETag of the version that you have seen.")]
_TAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')


def of(body: bytes) -> str:
    """The strong tag of these bytes."""
    return f'"{hashlib.sha256(body).hexdigest()[:32]}"'


def names(header: str, tag: str, *, weakly: bool) -> bool:
    """Whether a header names a tag; `weakly` a weak tag is the same as the strong one.

    >>> names('"a", W/"b"', '"b"', weakly=True), names('W/"b"', '"b"', weakly=False), names("*", '"b"', weakly=False)
    (True, False, True)
    """
    if header.strip() == "*":
        return True
    return any(tag == (found.removeprefix("W/") if weakly else found) for found in _TAG.findall(header))


def require(if_match: str | None, present: BaseModel) -> None:
    """Raise Problem PRECONDITION_FAILED where the client has seen another version."""
    tag = of(present.model_dump_json().encode())
    if if_match is not None and not names(if_match, tag, weakly=False):
        raise Problem("PRECONDITION_FAILED", headers={"ETag": tag})
