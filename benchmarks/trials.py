"""One way to judge advice: build its indexes on a database of their own, run the workload there, throw it away."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import fmean, median
from typing import Any

from psycopg2.extensions import make_dsn

from aiprod_ops.actions import measurements
from aiprod_ops.adapters.postgres.database import PostgresDatabase
from aiprod_ops.lab.data import Scale
from aiprod_ops.units import Seconds
from benchmarks import job_life
from benchmarks.api_statements import READS

PLANS = measurements.PLANS
_SIZE = """
select coalesce(sum(pg_relation_size(indexrelid)), 0)::float8 as bytes from pg_stat_user_indexes
where indexrelname not like '%%pkey' and relname in ('jobs', 'results', 'pipeline_jobs', 'users', 'api_keys')
"""


@dataclass(frozen=True)
class Trial:
    """What a set of indexes gives and costs. `load` is seconds of execution a minute, `buffers` pages a minute."""

    load: Mapping[str, float]
    buffers: Mapping[str, float]
    bytes: float
    wal: float
    hot: float
    built: float  #: seconds
    measured: float  #: seconds that measuring all cases took
    means: Mapping[int, float]  #: milliseconds by query id, custom plans
    worst: Mapping[str, str] = field(default_factory=dict)  #: what loads most, by kind of plan


@dataclass(frozen=True)
class Place:
    """A disposable server and the database on it that trials begin from."""

    dsn: str
    template: str
    scale: Scale

    def open(self, database: str) -> PostgresDatabase:
        return PostgresDatabase(self.named(database), writes=True, application_name="aiprod-ops bench")

    def named(self, database: str) -> str:
        return make_dsn(self.dsn, dbname=database)

    @contextmanager
    def database(self, name: str) -> Iterator[str]:
        """A copy of the template, gone afterwards. Nobody may be connected to the template meanwhile."""
        names = {"name": name, "template": self.template}
        with self.open("postgres") as admin:
            admin.execute("create database {name} template {template} strategy file_copy", names=names, timeout=_LONG)
            try:
                yield name
            finally:
                admin.execute("drop database {name} with (force)", names={"name": name}, timeout=_LONG)


_LONG = Seconds(600)


def run(
    place: Place, indexes: Sequence[str], wanted: Sequence[Any], report: Callable[[str], None] = lambda _: None
) -> Trial:
    """Build, measure all cases, then the lives of jobs."""
    with place.database("trial") as name:
        with place.open(name) as database:
            started = time.perf_counter()
            database.execute("set maintenance_work_mem = '512MB'")
            for index in indexes:
                report(index)
                database.execute(index, timeout=_LONG)
            built = time.perf_counter() - started
            database.execute("vacuum (analyze)", timeout=_LONG)
            started = time.perf_counter()
            measured, notes = measurements.measure(database, wanted)
            took = time.perf_counter() - started
            for note in notes:
                report(note)
            size = float(database.query(_SIZE)[0]["bytes"])
        cost = job_life.measure(place.named(name), place.scale)
    return _summed(wanted, measured, size, cost, (built, took))


def _summed(
    wanted: Sequence[Any], measured: Mapping[int, Any], size: float, cost: job_life.Cost, seconds: tuple[float, float]
) -> Trial:
    load: dict[str, float] = {}
    buffers: dict[str, float] = {}
    worst: dict[str, str] = {}
    means: dict[int, float] = {}
    for plan in PLANS:
        shares: list[tuple[float, str]] = []
        for number, call in enumerate(READS, 1):
            mine = _of(wanted, measured, number, plan) or _of(wanted, measured, number, "custom")
            ms = fmean(median(each.ms) for each in mine)
            if plan == "custom":
                means[number] = ms
            shares.append((call.per_minute * ms / 1000, call.name))
            pages = fmean(median(each.buffers or [0]) for each in mine)
            buffers[plan] = buffers.get(plan, 0.0) + call.per_minute * pages
        load[plan] = sum(seconds for seconds, _ in shares)
        worst[plan] = ", ".join(f"{name} {seconds:.3f}" for seconds, name in sorted(shares, reverse=True)[:6])
    return Trial(load, buffers, size, cost.wal, cost.hot, *seconds, means, worst)


def _of(wanted: Sequence[Any], measured: Mapping[int, Any], number: int, plan: str) -> list[Any]:
    return [
        measured[position]
        for position, case in enumerate(wanted)
        if position in measured and case.subject.statement.query_id == number and case.plan == plan
    ]
