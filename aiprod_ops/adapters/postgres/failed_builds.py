"""Who left an INVALID index: the errors of CREATE INDEX and REINDEX in the server's JSON log, newest first.

Source: PostgreSQL manual, "Using JSON-Format Log Output". Only what names the index and its builder leaves here.
"""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

import pglast
from pglast import ast
from pglast.parser import ParseError

from aiprod_ops.adapters.postgres.log import LogFile, lines
from aiprod_ops.domain.catalogue.indexes import FailedBuild

_BUILDS = re.compile(rb"(?i)create\s+(?:unique\s+)?index|(?:re|drop\s+)index")
_ENDED = (b'"ERROR"', b'"FATAL"')


def failed_builds(files: Iterable[LogFile], database: str) -> tuple[FailedBuild, ...]:
    """Statements on this database that should have built, rebuilt or dropped an index, and did not."""
    return tuple(_found(files, database))


def _found(files: Iterable[LogFile], database: str) -> Iterator[FailedBuild]:
    for line in lines(files):
        if not _BUILDS.search(line) or not any(word in line for word in _ENDED):
            continue
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and entry.get("dbname") == database:
            yield from _builds(entry)


def _builds(entry: dict[str, Any]) -> Iterator[FailedBuild]:
    try:
        statements = pglast.parse_sql(str(entry.get("statement", "")))
    except ParseError:
        return
    for raw in statements:
        index, table = _named(raw.stmt)
        if index or table:
            yield FailedBuild(
                index,
                table,
                role=str(entry.get("user", "")),
                application=str(entry.get("application_name", "")),
                at=str(entry.get("timestamp", "")),
                message=str(entry.get("message", "")),
            )


def _named(statement: ast.Node | None) -> tuple[str, str]:
    """The index and the table that a statement names, where it does."""
    match statement:
        case ast.IndexStmt(idxname=index, relation=ast.RangeVar(relname=table)):
            return str(index or ""), str(table)
        case ast.ReindexStmt(relation=ast.RangeVar(relname=name)):
            return str(name), str(name)
        case ast.DropStmt(objects=[[*_, ast.String(sval=name)], *_]):
            return str(name), ""
    return "", ""
