"""What `service.toml` promises of backups, in [backups]."""

from aiprod_ops.config import Promises
from aiprod_ops.domain.audits import Promise
from aiprod_ops.domain.retention import Retention
from aiprod_ops.units import Seconds, seconds


def backup_promise(promises: Promises) -> Promise:
    """Raises ConfigurationError where a value is missing, ValueError where it is no duration."""

    def time(name: str) -> Seconds:
        return seconds(promises.get(f"backups.{name}"))

    return Promise(
        every=time("every"),
        rpo=time("rpo"),
        retention=Retention(time("daily"), time("weekly"), time("monthly"), int(promises.get("backups.least"))),
        protected=bool(promises.get("backups.protected")),
        elsewhere=bool(promises.get("backups.elsewhere")),
        encrypted=bool(promises.get("backups.encrypted")),
    )
