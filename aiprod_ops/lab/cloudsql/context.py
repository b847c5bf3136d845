"""What the calls of the API share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from aiprod_ops.lab.cloudsql import documents
from aiprod_ops.lab.cloudsql.discovery import Flaw
from aiprod_ops.lab.cloudsql.ledger import Instance, Ledger, Operation
from aiprod_ops.lab.cloudsql.operations import Operations
from aiprod_ops.lab.cloudsql.refusals import invalid, malformed, no_authority
from aiprod_ops.lab.cloudsql.replication import Replication
from aiprod_ops.lab.cloudsql.servers import Servers

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Request:
    """A request that fits the schema: path parameters, query parameters, body."""

    path: Mapping[str, str]
    query: Mapping[str, str]
    body: Json


Handler = Callable[[Request], Json]


@dataclass(frozen=True, slots=True)
class Context:
    """The emulator's parts, as its calls need them."""

    ledger: Ledger
    operations: Operations
    servers: Servers
    replication: Replication
    url: str

    def instance(self, name: str) -> Instance:
        """An instance by its name, with its project in front or not. Raises Refusal (403) where there is none."""
        found = self.ledger.now.instances.get(self.bare(name))
        if found is None:
            raise no_authority()
        return found

    def bare(self, name: str) -> str:
        """A name without our project; one of another project does not exist here."""
        return name.removeprefix(f"{self.ledger.now.project}:")

    def answer(self, operation: Operation) -> Json:
        """An operation as it is answered when it was begun, whatever has become of it meanwhile."""
        return documents.operation(operation, self.ledger.now, self.url)

    def change(self, name: str, **fields: Any) -> Instance:
        """Put other fields into an instance's record, as it is now."""
        with self.ledger.alone():
            changed = replace(self.ledger.now.instances[name], **fields)
            self.ledger.put(changed)
        return changed


def now() -> str:
    """The time, as Google writes it."""
    return documents.timestamp(datetime.now(UTC))


def page(kind: str, items: list[Json], query: Mapping[str, str], most: int = 500) -> Json:
    """One page of a list. The token is the number of the first item of the next page."""
    token, wanted = query.get("pageToken", "0"), int(query.get("maxResults", most))
    if not token.isdigit() or wanted < 0:
        raise malformed([Flaw("pageToken", "Invalid value for pageToken or maxResults.")])
    first, size = int(token), min(wanted or most, 1000)
    answer: Json = {"kind": kind}
    if shown := items[first : first + size]:
        answer["items"] = shown
    if first + size < len(items):
        answer["nextPageToken"] = str(first + size)
    return answer


def fits(document: Json, condition: str) -> bool:
    """Whether a resource fits a filter: `field:value`, several with spaces, all have to hold.

    >>> fits({"name": "a", "settings": {"userLabels": {"x": "1"}}}, "name:a settings.userLabels.x:1")
    True
    >>> fits({"settings": {"on": True}}, "settings.on:true"), fits({"name": "a"}, "name:b")
    (True, False)

    Raises Refusal for what this emulator does not read (AND, OR, comparisons).
    """
    for part in condition.split():
        field, colon, wanted = part.partition(":")
        if not colon or part in ("AND", "OR", "NOT"):
            raise invalid(f"this emulator reads filters of the form field:value, not {part!r}.")
        found: Any = document
        for name in field.split("."):
            found = found.get(name) if isinstance(found, dict) else None
        shown = str(found).lower() if isinstance(found, bool) else str(found)
        if found is None or wanted.strip('"') not in ("*", shown):
            return False
    return True
