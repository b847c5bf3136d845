"""Sending deliveries of webhooks again: they are made due, so many a second, and whoever delivers takes them from there.

Each statement names the deliveries, and how they had ended when they were planned: one that was sent, replayed or
removed by somebody else since is not touched. What was sent is never unsent; what was not is put back as it had ended.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from aiprod_ops.domain.replays import Replayed, Wave
from aiprod_ops.engine.runbook import Amount, Context, Kind
from aiprod_ops.errors import Failed
from aiprod_ops.ports import Database
from aiprod_ops.units import Ratio, Seconds, show

_LOOK = Seconds(0.5)  #: between two looks at how far a wave is

#: Still as it had ended by the moment of the plan, and its endpoint takes something.
_AS_PLANNED = "d.state in ('failed', 'delivered') and d.ended_at <= %(moment)s and e.state = 'enabled'"
#: Its endpoint took what it was sent of the waves before: enough of it, or it was sent nothing.
_TAKES = """
coalesce((select avg((t.state = 'delivered')::int) from webhook_deliveries t
          where t.id = any(%(tried)s::uuid[]) and t.endpoint_id = d.endpoint_id and (t.state <> 'pending' or exists
            (select from webhook_attempts a where a.delivery_id = t.id and a.began_at > %(moment)s))
            and not (t.state = 'failed' and t.ended_at <= %(moment)s)), 1) >= %(success)s
"""
