"""pg_amcheck, run on this machine against any server: all heaps and b-trees of all databases."""

from collections.abc import Sequence
from pathlib import Path

from psycopg2.extensions import parse_dsn

from aiprod_ops.adapters.local.instance import LONGEST
from aiprod_ops.adapters.local.programs import Programs
from aiprod_ops.adapters.postgres.dsn import without_password
from aiprod_ops.domain.schema import Name

JOBS = 2  #: sessions; as many as a small machine has cores


def amcheck(programs: Programs, dsn: str, beside: Sequence[Name] = ()) -> list[str]:
    """What is wrong, a line each. The extension is installed where it is missing, so it is for disposable copies.

    The b-trees `beside` of the DSN's database are left out: somebody else looks at them.

    Raises Failed where it cannot look.
    """
    shown, env = without_password(dsn)
    arguments = ["--all", f"--jobs={JOBS}", "--install-missing", "--no-password", f"--maintenance-db={shown}"]
    database = parse_dsn(dsn).get("dbname", "") if beside else ""
    arguments += [f"--exclude-index={_pattern(database, each.schema, each.name)}" for each in beside]
    return programs.complaints("pg_amcheck", *arguments, cwd=Path("/"), timeout=LONGEST, env=env)


def _pattern(*parts: str) -> str:
    """Of just this relation: what is quoted stands for itself."""
    return ".".join('"{}"'.format(part.replace('"', '""')) for part in parts)
