"""What a server looks like, and what was done to it: read by a superuser, so that nothing is hidden."""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

from psycopg2.extensions import make_dsn

from aiprod_ops.lab import postgres
from aiprod_ops.lab.fleet import Fleet

#: What → one text. Neither WAL nor transaction numbers: autovacuum moves them on a quiet server, too.
_LOOKS = {
    "relations": """
        select string_agg(concat_ws(' ', n.nspname, c.relname, c.relkind,
                                    case when c.relkind <> 'i' then c.relfilenode end, c.relowner, c.relacl,
                                    c.reloptions), ';' order by n.nspname, c.relname)
        from pg_class c join pg_namespace n on n.oid = c.relnamespace
        where n.nspname <> 'pg_toast' and not starts_with(n.nspname, 'pg_t')""",
    "files of indexes": """
        select string_agg(concat_ws(' ', relname, relfilenode), ';' order by relname, oid) from pg_class
        where relkind = 'i' and oid >= 16384""",
    "columns": """
        select string_agg(concat_ws(' ', attrelid::regclass, attname, atttypid, atttypmod, attnotnull, attoptions,
                                    attstattarget), ';' order by attrelid::regclass::text, attnum)
        from pg_attribute where attrelid >= 16384 and attnum > 0""",
    "indexes": """
        select string_agg(concat_ws(' ', pg_get_indexdef(indexrelid), indisvalid, indisready), ';'
                          order by indexrelid::regclass::text)
        from pg_index where indrelid >= 16384""",
    "constraints": """
        select string_agg(concat_ws(' ', conname, pg_get_constraintdef(oid)), ';' order by oid) from pg_constraint""",
    "functions and triggers": """
        select (select string_agg(p.oid || md5(prosrc), ';' order by p.oid) from pg_proc p where p.oid >= 16384)
            || coalesce((select string_agg(tgname, ';' order by oid) from pg_trigger), '')""",
    "roles": """
        select (select string_agg(to_jsonb(r)::text, ';' order by rolname) from pg_roles r)
            || (select string_agg(to_jsonb(m)::text, ';' order by oid) from pg_auth_members m)""",
    "settings": """
        select concat((select string_agg(concat_ws(' ', name, setting, sourcefile), ';' order by name, sourcefile)
                       from pg_file_settings),
                      (select string_agg(to_jsonb(s)::text, ';' order by setdatabase, setrole)
                       from pg_db_role_setting s))""",
    "slots": "select string_agg(slot_name, ';' order by slot_name) from pg_replication_slots",
    "rows written": """
        select string_agg(concat_ws(' ', relid, n_tup_ins, n_tup_upd, n_tup_del), ';' order by relid)
        from pg_stat_user_tables""",
    "statistics": """
        select concat((select stats_reset from pg_stat_statements_info),
                      (select stats_reset from pg_stat_database where datname = current_database()))""",
    "sessions of others": """
        select string_agg(concat_ws(' ', pid, backend_start), ';' order by pid) from pg_stat_activity
        where backend_type = 'client backend' and pid <> pg_backend_pid()
          and not starts_with(application_name, 'aiprod-ops')
          and state <> 'starting'""",  # before it has a state, one of ours has no name either
}  # fmt: skip

#: Statements of a role that are more than reading: all but these, and these where they call one of those functions.
_READING = (
    r"^\s*(/\*.*?\*/\s*)?(select|with|set|show|begin|commit|rollback|discard|explain|prepare|execute|deallocate)\M"
)
_EFFECTS = (
    "pg_(terminate|cancel)_backend|pg_promote|pg_switch_wal|pg_(create|drop)_|pg_stat_[a-z_]*reset *\\(|nextval|setval"
    "|pg_reload_conf|pg_rotate_logfile|pg_wal_replay|lo_"
)
_ACTS = """
    select s.query, sum(s.calls)::bigint from pg_stat_statements s join pg_roles r on r.oid = s.userid
    where r.rolname = %(role)s and (s.query !~* %(reading)s or s.query ~* %(effects)s) group by s.query"""

#: What would let a role change something, whatever its grants on tables are.
POWERS = (
    "pg_write_all_data", "pg_signal_backend", "pg_write_server_files", "pg_execute_server_program", "pg_checkpoint",
    "pg_maintain", "pg_create_subscription", "pg_signal_autovacuum_worker", "pg_database_owner", "aiprod_owner",
)  # fmt: skip
_POWERS = """
    select p.rolname::text from pg_roles p join pg_roles r on r.rolname = %(role)s
    where p.rolname = any(%(powers)s) and pg_has_role(r.oid, p.oid, 'MEMBER') order by 1"""


@dataclass(frozen=True, slots=True)
class Look:
    """What the server looked like at one moment, by topic."""

    topics: dict[str, str]

    def changes(self, later: "Look", but: Collection[str] = ()) -> list[str]:
        """Topics that differ, with what is new or gone; all topics but these."""
        return [
            f"{topic} ({_difference(self.topics[topic], later.topics[topic])})"
            for topic in self.topics
            if topic not in but and self.topics[topic] != later.topics[topic]
        ]


def _difference(before: str, after: str) -> str:
    then, now = set(before.split(";")), set(after.split(";"))
    parts = [f"-{text[:90]}" for text in sorted(then - now)[:2]] + [f"+{text[:90]}" for text in sorted(now - then)[:2]]
    return ", ".join(parts)


def _dsn(fleet: Fleet) -> str:
    """With a name of ours: a session that has just ended may still be seen by the next."""
    return make_dsn(fleet.dsn("postgres"), application_name="aiprod-ops look")


def look(fleet: Fleet) -> Look:
    """Look at the primary."""
    topics = {}
    with postgres.session(_dsn(fleet)) as session, session.cursor() as cursor:
        for topic, query in _LOOKS.items():
            cursor.execute(query)
            row = cursor.fetchone()
            topics[topic] = str(row[0]) if row else ""
    return Look(topics)


def acts(fleet: Fleet, role: str) -> Counter[str]:
    """Statements of a role that completed and that do more than read, by text, since statistics were reset."""
    values = {"role": role, "reading": _READING, "effects": _EFFECTS}
    return Counter({str(text): int(calls) for text, calls in postgres.rows(_dsn(fleet), _ACTS, values)})


def powers(fleet: Fleet, role: str) -> list[str]:
    """Roles that let this one change something."""
    found = postgres.rows(_dsn(fleet), _POWERS, {"role": role, "powers": list(POWERS)})
    return [str(name) for (name,) in found]


def remains(fleet: Fleet) -> list[str]:
    """What a run may have left behind: its sessions, INVALID indexes."""
    sessions = (
        "select 'session ' || application_name from pg_stat_activity where application_name ~ '^aiprod-ops (2|watch)'"
    )
    indexes = "select 'INVALID index ' || indexrelid::regclass from pg_index where not (indisvalid and indisready)"
    found = postgres.rows(_dsn(fleet), f"{sessions} union all {indexes}")
    return [str(text) for (text,) in found]


def writers(fleet: Fleet) -> list[str]:
    """Applications that work on the lab: sessions of the workload's role."""
    query = "select distinct application_name from pg_stat_activity where usename = 'aiprod_app' and state is not null"
    return [str(name) for (name,) in postgres.rows(_dsn(fleet), query)]
