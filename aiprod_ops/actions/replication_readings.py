"""What a primary and its standbys say of replication; a monitoring role (pg_monitor) sees all of it."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from aiprod_ops.domain.replication import NOT_LOWER, Node, Sender, Slot, Topology
from aiprod_ops.engine.runbook import Context
from aiprod_ops.errors import ConfigurationError, Crowded, OpsError, PermissionMissing, Unreachable
from aiprod_ops.ports import Database, Server
from aiprod_ops.units import Bytes, Seconds

_NODE = """
select pg_is_in_recovery() as is_standby,
       (select system_identifier::text from pg_control_system()) as system_identifier,
       greatest((select received_tli from pg_stat_wal_receiver), (select timeline_id from pg_control_checkpoint()),
                (select max(('x' || left(name, 8))::bit(32)::int) from pg_ls_waldir()
                 where name ~ '^[0-9A-F]+$' and length(name) = 24))
         as timeline,
       case when pg_is_in_recovery() then '' else pg_walfile_name(pg_current_wal_flush_lsn()) end as segment,
       case when pg_is_in_recovery() then 0 else pg_current_wal_flush_lsn() - '0/0'::pg_lsn end::bigint as written,
       coalesce(pg_last_wal_receive_lsn() - '0/0'::pg_lsn, 0)::bigint as received,
       coalesce(pg_last_wal_replay_lsn() - '0/0'::pg_lsn, 0)::bigint as replayed,
       case when pg_is_in_recovery() then pg_is_wal_replay_paused() else false end as is_paused,
       extract(epoch from clock_timestamp() - pg_last_xact_replay_timestamp())::float8 as silent,
       coalesce((select concat_ws(':', sender_host, sender_port) from pg_stat_wal_receiver where status = 'streaming'),
                '') as sender,
       (select extract(epoch from clock_timestamp() - last_msg_receipt_time)::float8 from pg_stat_wal_receiver)
         as heard,
       (select setting::float8 / 1000 from pg_settings where name = 'wal_receiver_timeout') as timeout,
       coalesce((select slot_name from pg_stat_wal_receiver), '') as slot,
       exists (select from pg_settings where name = 'archive_mode' and setting in ('on', 'always'))
         and exists (select from pg_settings where name in ('archive_command', 'archive_library')
                                             and coalesce(setting, '') not in ('', '(disabled)')) as archives,
       (select coalesce(array_agg(slot_name::text order by slot_name), array[]::text[]) from pg_replication_slots s
        where slot_type = 'logical' and coalesce(to_jsonb(s) ->> 'failover', 'false') <> 'true') as logical,
       (select jsonb_object_agg(name, setting::int) from pg_settings where name = any(%(names)s)) as settings,
       (select coalesce(sum(conflicts), 0)::bigint from pg_stat_database) as conflicts,
       (select count(*)::int from pg_prepared_xacts) as prepared,
       exists (select from pg_settings where name = 'default_transaction_read_only' and setting = 'on'
                                       and source in ('configuration file', 'command line')) as is_read_only,
       (select coalesce(extract(epoch from max(clock_timestamp() - xact_start)), 0)::float8 from pg_stat_activity
        where backend_type = 'client backend' and pid <> pg_backend_pid()) as oldest /* aiprod-ops: a node */
"""
_SENDERS = """
select application_name as name, coalesce(state, '') as state, coalesce(sync_state, '') as sync,
       coalesce(replay_lsn - '0/0'::pg_lsn, 0)::bigint as replayed, extract(epoch from replay_lag)::float8 as lag
from pg_stat_replication order by 1, pid /* aiprod-ops: senders */
"""
_SLOTS = """
select slot_name::text as name, slot_type as kind, active as is_active, coalesce(wal_status, '') as status,
       greatest(0, coalesce(pg_current_wal_flush_lsn() - restart_lsn, 0))::bigint as retained
from pg_replication_slots where not temporary order by 1 /* aiprod-ops: slots */
"""
_SETTINGS = "select name, setting from pg_settings where name = any(%(names)s) order by 1 /* aiprod-ops: settings */"


def topology(ctx: Context) -> Topology:
    """Ask every node, the primary first: so no standby seems behind for nothing. Who does not answer is named with the
    reason."""
    nodes = dict(ctx.nodes) or {ctx.target.name: ctx.db, **ctx.replicas}
    silent: dict[str, str] = {}
    living: list[str] = []
    roles: dict[str, bool] = {}
    with ThreadPoolExecutor(len(nodes)) as at_once:  # one that does not answer takes the time of a time-out
        for name, answer in {name: at_once.submit(_server, database) for name, database in nodes.items()}.items():
            try:
                roles[name] = answer.result().is_standby
            except OpsError as error:
                silent[name] = error.told
                if isinstance(error, (PermissionMissing, ConfigurationError, Crowded)):
                    living.append(name)
    read: list[Node] = []
    for name in sorted(roles, key=lambda each: roles[each]):
        try:
            read.append(read_node(nodes[name], name))
        except OpsError as error:
            silent[name] = error.told
            if isinstance(error, PermissionMissing):
                living.append(name)
    primary = read.pop(0) if read and not read[0].is_standby else None
    if primary is None:
        return Topology(None, tuple(read), silent=silent, living=tuple(living))
    database = nodes[primary.name]
    senders = tuple(Sender(**row) for row in database.query(_SENDERS))
    slots = tuple(Slot(**{**row, "retained": Bytes(row["retained"])}) for row in database.query(_SLOTS))
    forked = _forked(ctx, database, primary, read)
    return Topology(primary, tuple(read), senders, slots, silent, tuple(living), ctx.platform.free(), forked)


def _forked(ctx: Context, database: Database, primary: Node, others: Sequence[Node]) -> dict[str, str]:
    """One that has more than its primary, asked after it, went its own way; so did one whose files tell it, where both
    can be looked at."""
    alike = [each for each in others if each.is_standby and each.timeline == primary.timeline]
    if any(each.has > primary.written for each in alike):
        written = read_node(database, primary.name).written
        found = {each.name: "it has WAL that the primary lacks" for each in alike if each.has > written}
    else:
        found = {}
    try:
        cluster = ctx.platform.cluster
    except ConfigurationError:
        return found
    told = {each.name: cluster.unlike(each.name, primary.name, min(each.has, primary.written)) for each in alike}
    return found | {name: why for name, why in told.items() if why}


def settings_of(database: Database, names: Sequence[str]) -> dict[str, str]:
    """These settings of one server, of those that it knows, in their base units."""
    return {str(row["name"]): str(row["setting"]) for row in database.query(_SETTINGS, {"names": list(names)})}


def _server(database: Database) -> Server:
    """Asked twice: a session with a server that was restarted meanwhile is lost with the first question."""
    try:
        return database.server()
    except Unreachable:
        return database.server()


def read_node(database: Database, name: str) -> Node:
    """What one server says of itself."""
    row: Mapping[str, object] = database.query(_NODE, {"names": list(NOT_LOWER)})[0]
    values = dict(row)
    segment = str(values.pop("segment"))
    if segment:  # of a primary that was promoted the last checkpoint may still be of the timeline before
        values["timeline"] = int(segment[:8], 16)
    for what in ("silent", "heard", "oldest", "timeout"):
        values[what] = None if values[what] is None else Seconds(float(str(values[what])))
    values["logical"] = tuple(values["logical"])  # type: ignore[arg-type]
    return Node(name=name, **values)  # type: ignore[arg-type]
