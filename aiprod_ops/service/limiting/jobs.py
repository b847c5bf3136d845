"""How many jobs of a user are under way: counted in PostgreSQL, where the jobs are. No counter can drift from them."""

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from aiprod_ops.domain.tiers import Tier, month_after, month_of
from aiprod_ops.service.usage.ledger import monthly_cost

#: One submission of a user at a time, until its transaction ends. The number that names this use of the lock is ours.
_LOCK = text("""
select current_setting('transaction_isolation') as isolation,
       pg_advisory_xact_lock(hashtextextended(cast(:user_id as text), 7316112)) is null as locked
/* aiprod-ops: one submission of a user at a time */
""")
_COUNT = text("""
select (select count(*) from jobs where user_id = :user_id and status in ('queued', 'processing') and batch_id is null)
           as under_way,
       (select cost_units from usage_months where user_id = :user_id and month = :month) as spent
/* aiprod-ops: what a user has under way, and has spent this month */
""")


@dataclass(frozen=True, slots=True)
class Room:
    """What a user may still submit."""

    jobs: int
    cost_units: int


class JobsRefused(Exception):
    """A submission that the tier does not allow. `code` is stable; `retry_after` is in seconds, None where no time
    helps or can be told."""

    def __init__(self, code: str, detail: str, retry_after: int | None = None) -> None:
        super().__init__(detail)
        self.code, self.detail, self.retry_after = code, detail, retry_after

    @property
    def problem(self) -> dict[str, Any]:
        """Members of the problem; status 429, or 422 for a batch that is too large at any time."""
        status = 422 if self.code == "BATCH_TOO_LARGE" else 429
        return {
            "title": self.code.replace("_", " ").capitalize(),
            "status": status,
            "code": self.code,
            "detail": self.detail,
        }


async def admit(connection: AsyncConnection, user_id: str, tier: Tier, jobs: int, moment: datetime) -> Room:
    """Make sure that a user may submit so many jobs now; insert them in the same transaction. Returns what is left.

    Raises JobsRefused, and RuntimeError where the transaction is not READ COMMITTED: a snapshot that was taken before
    the lock does not see what the submission before has inserted.
    """
    _require_size(tier, jobs)
    lock = (await connection.execute(_LOCK, {"user_id": user_id})).one()
    if lock.isolation != "read committed":
        raise RuntimeError(
            f"jobs are counted under {lock.isolation}, expected read committed: begin another transaction"
        )
    found = (await connection.execute(_COUNT, {"user_id": user_id, "month": month_of(moment)})).one()
    if found.under_way + jobs > tier.concurrent_jobs:
        raise JobsRefused(
            "CONCURRENT_JOBS_EXCEEDED",
            f"{found.under_way:,} jobs are under way and {jobs:,} were submitted, the tier {tier.name} allows "
            f"{tier.concurrent_jobs:,} at a time: wait for one to end, or cancel one.",
        )
    spent = int(found.spent or 0)
    _require_quota(tier, spent, moment)
    return Room(tier.concurrent_jobs - found.under_way - jobs, tier.monthly_cost_units - spent)


async def admit_batch(connection: AsyncConnection, user_id: str, tier: Tier, jobs: int, moment: datetime) -> None:
    """Make sure that a user may submit so many jobs as a batch; raises JobsRefused. They wait: workers take no more of
    them at a time than the tier allows, and single jobs are counted without them."""
    _require_size(tier, jobs)
    _require_quota(tier, await monthly_cost(connection, user_id, month_of(moment)), moment)


def _require_size(tier: Tier, jobs: int) -> None:
    if jobs > tier.batch_size:
        raise JobsRefused(
            "BATCH_TOO_LARGE",
            f"The batch has {jobs:,} jobs, the tier {tier.name} allows {tier.batch_size:,}: divide it.",
        )


def _require_quota(tier: Tier, spent: int, moment: datetime) -> None:
    month = month_of(moment)
    if spent >= tier.monthly_cost_units:
        until = datetime.combine(month_after(month), datetime.min.time(), UTC) - moment
        raise JobsRefused(
            "MONTHLY_QUOTA_EXCEEDED",
            f"{spent:,} of {tier.monthly_cost_units:,} cost units of {month:%Y-%m} are spent: wait for the next month, "
            f"or change the tier.",
            math.ceil(until.total_seconds()),
        )
