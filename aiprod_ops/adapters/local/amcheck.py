"""pg_amcheck, run on this machine against any server: all heaps and b-trees of all databases."""

from pathlib import Path

from aiprod_ops.adapters.local.instance import LONGEST
from aiprod_ops.adapters.local.programs import find
from aiprod_ops.adapters.postgres.dsn import without_password

JOBS = 2  #: sessions; as many as a small machine has cores


def amcheck(dsn: str, postgres_bin: Path | None = None) -> list[str]:
    """What is wrong, a line each. The extension is installed where it is missing, so it is for disposable copies.

    Raises Failed where it cannot look.
    """
    shown, env = without_password(dsn)
    arguments = ["--all", f"--jobs={JOBS}", "--install-missing", "--no-password", f"--maintenance-db={shown}"]
    return find(postgres_bin).complaints("pg_amcheck", *arguments, cwd=Path("/"), timeout=LONGEST, env=env)
