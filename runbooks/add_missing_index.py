"""Add the index that a slow statement is missing.

Statements that take too long, or too much in total, are read from `pg_stat_statements` (or from the server's JSON log),
and parsed by PostgreSQL's own parser. What they compare and sort by gives the index they miss; nothing is proposed that
an existing index already serves. A statement that no index helps is OK here: `aiprod-ops check slow-queries` judges it.
One that cannot be read is UNKNOWN. So is nothing found, where the counters are younger than `--least`.

The index is built on a restored copy first. Every statement on its tables is measured there before and after, with
rare, median and common values, with a custom and with a generic plan. An index that makes any of them worse is
refused, and so is one that helps too little, or costs the writes on its table more buffers a minute than it saves the
reads. Worse is 1.2 times the buffers and the time, and at least 2 ms: the few buffers more that every index costs a
write are shown as its price.

What a copy refused is remembered as long as evidence is good (`evidence.max_age`) and neither the index nor its table
has changed: the check tells it, and the plan leaves it out unless `--again` asks for it.

On the target it is built concurrently: reads and writes go on. The build is watched, and cancelled when it waits too
long, blocks somebody, or lets the replicas fall behind; what it leaves is removed.

Source: PostgreSQL manual, CREATE INDEX, "Building Indexes Concurrently"; "Multicolumn Indexes"; "Indexes and ORDER BY".
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from aiprod_ops import api
from aiprod_ops.api import (
    Action,
    Build,
    Bytes,
    Context,
    Copy,
    Cores,
    Finding,
    Lab,
    Milliseconds,
    Moving,
    Name,
    Plan,
    Proof,
    Schema,
    Seconds,
    Statement,
    TableSize,
    Workload,
)


@dataclass(frozen=True)
class Params:
    """What may be set on the command line."""

    objective: Milliseconds = api.promise("database.statement_mean", least=0.001)  #: mean of one call; above it is slow
    load: Cores = api.promise("database.statement_load")  #: part of one core that one statement may keep busy
    wasted: Cores = api.promise("database.wasted_load")  #: cores that missing indexes may keep busy in all
    least: Seconds = Seconds(10)  #: where nothing is found, counters that are younger have not seen enough to say so
    min_gain: float = api.limited(2.0, least=1)  #: buffers before / after on the copy, for at least one statement
    patience: Seconds = Seconds(300)  #: how long the build may wait for older transactions of others
    blocked: Seconds = Seconds(5)  #: how long a session may wait for the build
    lag: Seconds = Seconds(60)  #: replay lag of the slowest replica, before and while building
    oldest: Seconds = Seconds(60)  #: oldest transaction that may be open when the build starts
    size: Bytes = Bytes(10**12)  #: bytes that new indexes may take together, as estimated
    wal: Bytes = Bytes(8192)  #: WAL that they may add to a row that is written, on average, as estimated
    most: int = 20  #: statements that are measured on the copy, largest total time first
    again: bool = False  #: whether to plan what a copy refused not long ago


@dataclass(frozen=True)
class Facts:
    """What is declared stays; what is counted moves."""

    schema: Schema
    is_standby: bool
    workload: Moving[Workload]
    sizes: Moving[dict[str, TableSize]]
    refused: Moving[tuple[api.Refusal, ...]] = ()


book = api.Runbook(
    params=Params,
    symptom="Pages are slow; a few statements take most of the database's time",
    risk="moderate",
    owner="database",
    check_every="1 h",
    drill_every="30 d",
    alerts=("SlowStatements",),
    actions=(api.create_index, api.drop_index, api.drop_invalid_index),
)


@book.facts
def facts(ctx: Context, params: Params) -> Facts:  # noqa: ARG001
    """Needs `pg_monitor`, and `pg_read_all_data` for the columns' statistics."""
    schema, is_standby = ctx.db.schema(), ctx.db.server().is_standby
    return Facts(schema, is_standby, ctx.db.workload(), ctx.db.sizes(), api.known_refusals(ctx))


@book.judge
def judge(facts: Facts, params: Params) -> Iterator[Finding]:
    """The time that missing indexes cost, then one finding for each costly statement, largest total time first."""
    if not facts.workload.statements and facts.workload.missing:
        for missing in facts.workload.missing:
            yield Finding("statements", None, note=missing)
        return
    advice, refused = _advice(facts, params), _refused(facts, params)
    candidates = [each for each in advice.candidates if each.index.name not in refused]
    helped = {query_id: each.index for each in candidates for query_id in each.serves}
    lost = sum(facts.workload.load(s) for s in facts.workload.statements if s.query_id in helped)
    is_young = not helped and facts.workload.window < params.least
    seen = f"{_YOUNG if is_young else ''}{_of(facts.workload)}"
    yield Finding(
        "cores kept busy for want of an index", None if is_young else lost, "", warn=params.load, crit=params.wasted,
        note=f"{seen}; {len(helped)} of them miss an index, {len(candidates)} indexes help"
        + (f"; {len(refused)} more were refused by a copy" if refused else "")
        + "".join(f"; {each.index.name.name} makes {_list(each.replaces)} needless"
                  for each in candidates if each.replaces),
    )  # fmt: skip
    unread = dict(advice.unread)
    declined = dict(advice.declined) | {
        query_id: f"index on {each.index.place}: {refused[each.index.name]}"
        for each in advice.candidates
        if each.index.name in refused
        for query_id in each.serves
    }
    bare = _without_secondary(facts.schema)
    for statement in _costly(facts.workload, params):
        index = helped.get(statement.query_id)
        is_served = not index and bool(api.advise([statement], bare, facts.sizes).candidates)
        reason = "its index is there" if is_served else "no index helps: check slow-queries"
        reason = declined.get(statement.query_id, reason)
        found = _finding(statement, facts.workload, params, f"index on {index.place}" if index else reason, bool(index))
        if not index and statement.query_id in unread:
            yield _unread(found, unread[statement.query_id])
        else:
            yield found
    for missing in facts.workload.missing:
        yield Finding("not everything could be read", None, note=missing)


_YOUNG = "too short a time to find nothing in (a reset, a restart?): check again in a minute; "
#: A promise of nothing at all (`--load 0` shows every statement) is counted as this much.
_LEAST_PROMISE = 1e-6


def _finding(statement: Statement, workload: Workload, params: Params, advice: str, is_helped: bool) -> Finding:
    """How many times over what is promised: in the mean of one call, or in the load of all."""
    promised = [(statement.mean, params.objective), (workload.load(statement), params.load)]
    over = max(float(seen) / max(float(most), _LEAST_PROMISE) for seen, most in promised)
    cells = {
        "statement": statement.text,
        "calls": f"{statement.calls:,}",
        "mean": api.show(statement.mean, "ms"),
        "total": api.show(statement.total, "ms"),
        "share": api.show(workload.share(statement), "ratio"),
        "advice": advice,
    }
    warn, crit = (1.0, 4.0) if is_helped else (None, None)
    return Finding(
        "times over the objective", over, "×", warn, crit, columns=cells, id=f"statement:{statement.query_id}"
    )


def _unread(found: Finding, reason: str) -> Finding:
    """A costly statement of which nobody can tell whether an index helps: that is not OK."""
    return replace(found, value=None, note=reason, columns={**found.columns, "advice": "cannot be told"})


def _of(workload: Workload) -> str:
    """What the figures are of: they are means over the window, and a quiet hour makes them small."""
    return f"of {len(workload.statements)} statements in the last {api.show(workload.window, 's')}"


def _without_secondary(schema: Schema) -> Schema:
    """The schema with nothing but unique indexes: what helps there and not here is served already."""
    tables = (replace(t, indexes=tuple(i for i in t.indexes if i.is_unique)) for t in schema.tables)
    return replace(schema, tables=tuple(tables))


def _list(names: Sequence[Name]) -> str:
    return " and ".join(name.name for name in names)


def _costly(workload: Workload, params: Params) -> list[Statement]:
    """Slow in one call, or in the sum of all: 200 ms sixty times a minute is worse than 600 ms once an hour."""
    return [s for s in workload.statements if s.mean >= params.objective or workload.load(s) >= params.load]


def _advice(facts: Facts, params: Params) -> api.Advice:
    """For the costly statements; all others tell what an index costs."""
    budget = api.Budget(params.size, params.wal)
    costly, everything = _costly(facts.workload, params), facts.workload.statements
    return api.advise(costly, facts.schema, facts.sizes, workload=everything, budget=budget)


def _refused(facts: Facts, params: Params) -> dict[Name, api.Refusal]:
    """What is advised and a copy has refused, unless it is asked for again."""
    return {} if params.again else api.refused(_advice(facts, params).candidates, facts.refused, facts.schema)


@book.omits
def omits(facts: Facts, params: Params) -> Mapping[str, str]:
    """What a copy has refused."""
    found = _refused(facts, params)
    return {name.name: f"{refusal}; --again plans it all the same" for name, refusal in found.items()}


@book.plan
def plan(facts: Facts, params: Params) -> Iterator[Action]:
    """One index for each candidate that no copy has refused; an INVALID one of the same name is removed first.

    Raises Refused where nothing could be planned: an empty plan would look as if nothing was missing.
    """
    _refuse_blindness(facts)
    texts = {statement.query_id: statement.text for statement in facts.workload.statements}
    refused = _refused(facts, params)
    for candidate in _advice(facts, params).candidates:
        index = candidate.index
        if index.name in refused:
            continue
        table = facts.schema.table(index.table.schema, index.table.name)
        served = tuple((query_id, texts[query_id]) for query_id in candidate.serves)
        build = Build(index, served, facts.schema.revision)
        if table is not None and any(each.name == index.name for each in table.indexes):
            yield Action(
                "drop-invalid-index", Build(index), basis=table, name=f"{build} (INVALID)",
                irreversible="an INVALID index serves nobody and costs every write", lock="SHARE UPDATE EXCLUSIVE",
            )  # fmt: skip
        yield Action(
            "create-index",
            build,
            basis=table,
            undo=Action("drop-index", Build(index), lock=api.LOCK, estimate=api.Estimate(Seconds(1))),
            lock=api.LOCK,
            estimate=api.build_estimate(facts.sizes[str(index.table)], candidate.size),
            timeout=api.LONGEST,
        )


def _refuse_blindness(facts: Facts) -> None:
    if facts.is_standby:
        raise api.Refused(
            "this server is a standby: an index is built on its primary, and comes here by replication",
            hint="plan on the primary; `select sender_host, sender_port from pg_stat_wal_receiver` tells which it is",
        )
    if not facts.workload.statements and facts.workload.missing:
        raise api.Refused("no statement can be read", hint=" ".join(facts.workload.missing))


@book.prove
def prove(copy: Copy, plan: Plan, params: Params) -> Proof:
    """Build on the copy, measure before and after, refuse what makes any statement worse or helps too little."""
    return api.try_builds(copy, plan, most=params.most, min_gain=params.min_gain)


@book.guard
def guard(ctx: Context, plan: Plan, params: Params) -> Iterator[Finding]:
    """Read again right before each build."""
    needed = Bytes(sum(action.estimate.size for action in plan.actions if action.estimate))
    yield from api.ready_to_build(ctx, _tables(plan), needed, oldest=params.oldest, lag=params.lag)


@book.watch
def watch(ctx: Context, plan: Plan, params: Params) -> Iterator[Finding]:  # noqa: ARG001
    yield from api.invariants(ctx, patience=params.patience, blocked=params.blocked, lag=params.lag)


@book.verify
def verify(ctx: Context, plan: Plan, params: Params) -> Iterator[Finding]:  # noqa: ARG001
    """Valid, as planned, and chosen by the planner for a custom and for a generic plan, with real values.

    A generic plan counts only where the server would take it: `LIKE $1` stays with custom plans, which cost less.
    """
    schema = ctx.db.schema()
    counted = {statement.query_id: statement for statement in ctx.db.workload().statements}
    for action in plan.actions:
        if action.kind != "create-index":
            continue
        build = api.build_of(action)
        is_there = api.is_built(ctx, build)
        yield Finding(f"{build} is valid", float(not is_there), "grade", crit=1, note="" if is_there else "it is not")
        served = [counted.get(statement.query_id, statement) for statement in api.served(build)]
        yield from api.choices(ctx.db, str(build), served, schema)


def _tables(plan: Plan) -> list[Name]:
    return sorted({api.build_of(action).index.table for action in plan.actions})


@book.files
def files(plan: Plan, params: Params) -> Mapping[str, str]:  # noqa: ARG001
    """The Alembic revision, so that the schema and its migrations do not drift apart."""
    builds = [api.build_of(action) for action in plan.actions if action.kind == "create-index"]
    declared = [api.Declared(build.index.name, api.creation(build)) for build in builds]
    revision = builds[0].revision if builds else ""
    return api.alembic_revision(plan.runbook, plan.digest, revision, created=declared)


_LOG_ALL = "alter database {database} set log_min_duration_statement = 0"
_LOG_AGAIN = "alter database {database} reset log_min_duration_statement"
_INDEXES = """
select n.nspname, c.relname from pg_index i join pg_class c on c.oid = i.indexrelid
join pg_namespace n on n.oid = c.relnamespace where n.nspname not in ('pg_catalog', 'pg_toast')
"""


@book.inject
@contextmanager
def inject(lab: Lab, params: Params) -> Iterator[None]:  # noqa: ARG001
    """The application works on tables without indexes, every call is logged; at the end new indexes are dropped."""
    with lab.connect("postgres") as admin:
        database = {"database": admin.server().database}
        before = _indexes(admin)
        admin.execute(_LOG_ALL, names=database)
        try:
            admin.execute("select pg_stat_statements_reset()")
            lab.work(20)
            yield
        finally:
            admin.execute(_LOG_AGAIN, names=database)
            for name in sorted(_indexes(admin) - before):
                admin.execute("drop index concurrently if exists {name}", names={"name": name})


def _indexes(database: api.Database) -> set[Name]:
    return {Name(row["nspname"], row["relname"]) for row in database.query(_INDEXES)}
