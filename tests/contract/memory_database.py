"""A Database whose answers are given beforehand: the port in a page."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from aiprod_ops.domain.catalogue.indexes import Catalogue
from aiprod_ops.domain.catalogue.inspections import Inspection
from aiprod_ops.domain.catalogue.usage import NodeUsage
from aiprod_ops.domain.counters import StatementsSnapshot
from aiprod_ops.domain.schema import Name, Schema, TableSize
from aiprod_ops.domain.statements import Logged, Workload
from aiprod_ops.errors import Cancelled, Refused, TimedOut
from aiprod_ops.ports import ColumnTexts, Names, Sample, Server, Values
from aiprod_ops.units import Milliseconds, Seconds

Rows = list[dict[str, Any]]
Answer = Callable[[Values, Names], Rows]
SLEEP = "SELECT pg_sleep(%(duration)s)"
_SERVER = Server(
    "7000000000000000001", 180006, "memory", "nobody", is_superuser=False, is_standby=False, can_write=False
)
_CATALOGUE = Catalogue(180006, "memory", "nobody", reads_statistics=True, is_standby=False)
_USUAL = Seconds(30)
_DAWN = datetime(2026, 11, 21, tzinfo=UTC)
_NOTHING = StatementsSnapshot(_DAWN, _DAWN, _DAWN, 0, ())
_IDLE = Workload((), Seconds(3600), Milliseconds(0))


class MemoryDatabase:
    """`answers` by SQL text; `locks` (key to holder) is shared by one server's sessions; `logged` is newest first."""

    def __init__(
        self,
        *,
        writes: bool = False,
        answers: Mapping[str, Answer] | None = None,
        locks: dict[str, "MemoryDatabase"] | None = None,
        server: Server = _SERVER,
        workload: Workload = _IDLE,
        statements: StatementsSnapshot = _NOTHING,
        texts: Mapping[int, str] | None = None,
        schema: Schema = Schema(()),  # noqa: B008 - frozen
        sizes: Mapping[str, TableSize] | None = None,
        values: Mapping[tuple[Name, str], ColumnTexts] | None = None,
        logged: Sequence[Sample] = (),
        unlogged: str = "",
        catalogue: Catalogue = _CATALOGUE,
        usage: NodeUsage = NodeUsage({}),  # noqa: B008 - frozen
        bloat: Inspection = Inspection(),  # noqa: B008 - frozen
        damage: Inspection = Inspection(),  # noqa: B008 - frozen
    ) -> None:
        self._writes, self._answers, self._logged, self._unlogged = writes, dict(answers or {}), logged, unlogged
        self._locks = {} if locks is None else locks
        self._server, self._workload, self._schema = server, workload, schema
        self._statements, self._texts = statements, dict(texts or {})
        self._sizes, self._values = dict(sizes or {}), dict(values or {})
        self._catalogue, self._usage, self._bloat, self._damage = catalogue, usage, bloat, damage
        self._cancelled = threading.Event()

    def server(self) -> Server:
        return self._server

    def query(
        self, sql: str, values: Values | None = None, *, names: Names | None = None, timeout: Seconds = _USUAL
    ) -> Rows:
        self._cancelled.clear()
        if sql == SLEEP:
            return self._sleep(float(str((values or {})["duration"])), timeout)
        return self._answers[sql](values or {}, names or {})

    def execute(
        self, sql: str, values: Values | None = None, *, names: Names | None = None, timeout: Seconds = _USUAL
    ) -> None:
        if not self._writes:
            raise Refused("a probe only reads")
        self.query(sql, values, names=names, timeout=timeout)

    def hold(self, key: str) -> bool:
        if not self._writes:
            raise Refused("a probe takes no lock")
        return self._locks.setdefault(key, self) is self

    def cancel(self) -> None:
        self._cancelled.set()

    def workload(self) -> Workload:
        return self._workload

    def statements(self) -> StatementsSnapshot:
        return self._statements

    def texts(self, query_ids: Sequence[int]) -> dict[int, str]:
        return {query_id: self._texts[query_id] for query_id in query_ids if query_id in self._texts}

    def revision(self) -> str:
        return self.schema().revision

    def schema(self) -> Schema:
        return self._schema

    def sizes(self) -> dict[str, TableSize]:
        return self._sizes

    def column_values(self, columns: Sequence[tuple[Name, str]]) -> dict[tuple[Name, str], ColumnTexts]:
        return {column: self._values[column] for column in columns if column in self._values}

    def samples(self, query_ids: Sequence[int], most: int = 20) -> list[Sample]:
        newest = {each: [one for one in self._logged if one.query_id == each][:most] for each in query_ids}
        return [one for one in self._logged if one in newest.get(one.query_id, ())]

    def catalogue(self) -> Catalogue:
        return self._catalogue

    def index_usage(self) -> NodeUsage:
        return self._usage

    def bloat(self, indexes: Sequence[Name]) -> Inspection:
        return self._bloat

    def damage(self, indexes: Sequence[Name], *, rows: bool = False, timeout: Seconds = _USUAL) -> Inspection:
        return self._damage

    def logged(self, query_ids: Sequence[int], since: datetime) -> tuple[dict[int, Logged], str]:
        found: dict[int, list[float]] = {}
        for sample in self._logged:
            if sample.query_id in query_ids:
                found.setdefault(sample.query_id, []).append(sample.duration_ms)
        return {each: Logged(len(times), Milliseconds(max(times))) for each, times in found.items()}, self._unlogged

    @contextmanager
    def moment(self) -> Iterator[None]:
        yield

    def another(self) -> "MemoryDatabase":
        return self

    def close(self) -> None:
        for key in [key for key, holder in self._locks.items() if holder is self]:
            del self._locks[key]

    def _sleep(self, duration: float, timeout: Seconds) -> Rows:
        if self._cancelled.wait(min(duration, timeout or duration)):
            raise Cancelled("cancelled by us")
        if 0 < timeout < duration:
            raise TimedOut(f"stopped by its time limit of {timeout} s")
        return [{"pg_sleep": ""}]
