"""Jobs that the tests of every format share: intervals of each kind, and names that need quoting."""

from pathlib import Path

from aiprod_ops.actions.instance_promise import installed
from aiprod_ops.config import Settings
from aiprod_ops.domain.schedules import Interval, Job, Place, Terms, jobs
from aiprod_ops.schedules.installation import Installation
from aiprod_ops.units import seconds

EVERY = ("5 min", "1 h", "6 h", "1 d", "3 d", "7 d", "30 d", "90 d", "365 d")
ODD = "36 h"
PROMISES = Settings(Path("/nowhere"), {}).promises
PLACES = (Place("production", "production", ("OPS_ACTOR_DSN", "OPS_PROBE_DSN")), Place("50% $HOME 'ö\"", "lab"))
OPTIONS = ("--config", "/etc/aiprod-ops/config.toml")
WHERE = Installation(
    program="/bin/true",
    image="registry.example.com/aiprod-ops:1",
    project="example",
    location="europe-west1",
    service_account="ops@example.iam.gserviceaccount.com",
    prom_folder="/var/lib/prometheus/node-exporter",
    push="http://pushgateway:9091",
    passfile="/etc/aiprod-ops/pgpass",
    pages="https://ops.example.com/",
    target="production",
    promised=installed(PROMISES, "aiprod"),
)


def made(*every: str) -> list[Job]:
    """A check of each interval on both places, a daily proof and run, and a monthly drill."""
    wishes = [Interval(f"book-{n}", "check", seconds(each), "Slow") for n, each in enumerate(every or EVERY)]
    wishes += [Interval("book-0", work, seconds("1 d")) for work in ("prove", "run")]
    wishes.append(Interval("book-0", "drill", seconds("30 d")))
    return jobs(wishes, PLACES, Terms(seconds("2 h"), seconds("4 h")), OPTIONS)
