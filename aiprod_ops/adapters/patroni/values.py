"""What Patroni's REST API answers, as far as it is of use. Strangers' data: what is missing is '', and never a guess.

Source: Patroni manual, "Patroni REST API"; `cluster_as_json` and `PostgresqlState` of Patroni 4.1.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aiprod_ops.errors import Failed
from aiprod_ops.units import Seconds

RUNNING = "running"
CREATING = "creating replica"
#: No server of it lives, and Patroni starts none as a primary while another holds the leader lock.
DOWN = frozenset({"stopped", "crashed", "start failed", CREATING})
#: It does not come by itself any more.
BROKEN = frozenset({"stopped", "crashed", "start failed", "stop failed", "initdb failed"})
_LEADERS = frozenset({"leader", "standby_leader"})


@dataclass(frozen=True, slots=True)
class Listed:
    """One member as `/cluster` lists it. `state` is `streaming` where it is a standby that streams."""

    name: str
    role: str
    state: str
    follows: str = ""  #: the member that its tag `replicatefrom` names
    may_lead: bool = True


@dataclass(frozen=True, slots=True)
class View:
    """A cluster as one member reads it from where Patroni keeps its state. `leader` holds the lock, '' where nobody
    does; who was lost for longer than the lock's time is not listed any more."""

    members: Mapping[str, Listed]
    leader: str
    is_paused: bool
    scheduled: str  #: a switchover that somebody scheduled, in words

    @classmethod
    def of(cls, told: Any) -> "View":
        """Raises Failed for what is no answer of `/cluster`."""
        try:
            members = {each["name"]: _listed(each) for each in told["members"]}
            later = told.get("scheduled_switchover") or {}
        except (TypeError, KeyError, AttributeError) as error:
            raise Failed("what answers there is not Patroni: /cluster lists no members") from error
        leader = next((each.name for each in members.values() if each.role in _LEADERS), "")
        scheduled = f"from {later.get('from', '?')} to {later.get('to', 'any')} at {later['at']}" if later else ""
        return cls(members, leader, bool(told.get("pause")), scheduled)


def _listed(told: Mapping[str, Any]) -> Listed:
    tags = told.get("tags") or {}
    may_lead = not tags.get("nofailover") and tags.get("failover_priority") != 0
    state, follows = str(told.get("state", "")), str(tags.get("replicatefrom", ""))
    return Listed(str(told["name"]), str(told.get("role", "")), state, follows, may_lead)


@dataclass(frozen=True, slots=True)
class Status:
    """What one member's Patroni says of its own server. `state` is Patroni's word; `unknown` is one of them."""

    name: str
    state: str
    role: str

    @classmethod
    def of(cls, told: Any) -> "Status":
        """Raises Failed for what is no answer of `/patroni`."""
        if not isinstance(told, dict) or "state" not in told:
            raise Failed("what answers there is not Patroni: /patroni tells no state")
        name = (told.get("patroni") or {}).get("name", "")
        return cls(str(name), str(told["state"]), str(told.get("role", "")))


def last_leader(told: Any) -> str:
    """Who was promoted last, as `/history` tells; '' where nobody was since the cluster was made."""
    last = told[-1] if isinstance(told, list) and told else None
    return str(last[4]) if isinstance(last, list) and len(last) > 4 else ""


@dataclass(frozen=True, slots=True)
class Timing:
    """How long the leader lock holds without being renewed, and how often each member looks. Patroni's defaults."""

    ttl: Seconds = Seconds(30)
    loop_wait: Seconds = Seconds(10)

    @classmethod
    def of(cls, told: Any) -> "Timing":
        """What `/config` says, where it says it."""
        given = told if isinstance(told, dict) else {}
        kept = {
            key: Seconds(float(given[key])) for key in ("ttl", "loop_wait") if isinstance(given.get(key), int | float)
        }
        return cls(**kept)


@dataclass(frozen=True, slots=True)
class Said:
    """What Patroni answered to a call that changes something; `status` is None where it did not answer."""

    status: int | None
    text: str
