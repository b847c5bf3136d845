"""Who computes an entry, among all processes: a claim with a lease, and the versions that its tags have before it.

The lease is short and renewed: who dies keeps nobody waiting for long. Scripts, because a version that is missing has
to be made, the lease taken and the wish to be woken left in one step. Effects are replicated, not scripts (Redis 5 and
later), and each names its keys.
"""

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass

from redis.exceptions import InvalidResponse

from aiprod_ops.service.caching.connection import Command, Link, Reply, kind_of
from aiprod_ops.service.caching.keys import Namespace
from aiprod_ops.service.caching.turns import Turns
from aiprod_ops.service.caching.wakeups import Woken
from aiprod_ops.units import Seconds

LEASE = Seconds(2.0)  #: so long others wait for one that has died
LONGEST = Seconds(30.0)  #: nobody waits longer for one that lives; what took longer is not stored

#: KEYS: lock, waiting, tags …; ARGV: token, life of a tag (s), lease (ms), channel. Answers 1 if the claim is ours, how
#: long the lease lasts (ms), the versions. A claim under other versions is void: what it computes will not count.
_CLAIM = """
local versions = {}
for i = 3, #KEYS do
  local version = redis.call('GET', KEYS[i])
  if not version then
    version = ARGV[1]
    redis.call('SET', KEYS[i], version, 'EX', ARGV[2])
  elseif redis.call('TTL', KEYS[i]) < tonumber(ARGV[2]) then
    redis.call('EXPIRE', KEYS[i], ARGV[2])
  end
  versions[#versions + 1] = version
end
local under = table.concat(versions)
local held = redis.call('GET', KEYS[1])
if held and string.sub(held, 1, -1 - #ARGV[1]) == under then
  redis.call('SADD', KEYS[2], ARGV[4])
  redis.call('EXPIRE', KEYS[2], 60)
  return {0, redis.call('PTTL', KEYS[1]), unpack(versions)}
end
redis.call('SET', KEYS[1], under .. ARGV[1], 'PX', ARGV[3])
return {1, tonumber(ARGV[3]), unpack(versions)}
"""

#: KEYS: lock, waiting; ARGV: what the lock holds if it is still ours, what to tell who waits.
_END = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
local channels = redis.call('SMEMBERS', KEYS[2])
redis.call('DEL', KEYS[2])
for _, channel in ipairs(channels) do redis.call('PUBLISH', channel, ARGV[2]) end
"""

#: KEYS: lock; ARGV: what it holds if it is still ours, the lease (ms).
_RENEW = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end return 0"


@dataclass(frozen=True, slots=True)
class Claim:
    """`held` is what the lock holds while the claim is ours; of another's, `left` is how long its lease lasts."""

    key: str
    is_ours: bool
    left: Seconds
    versions: tuple[bytes, ...]
    held: bytes


class Claims:
    """Of one process. All names are of the namespace; `channel` is where this process listens."""

    def __init__(self, link: Link, turns: Turns, names: Namespace, channel: str) -> None:
        self._link, self._turns, self._names, self._channel = link, turns, names, channel

    async def claim(self, key: str, tags: Sequence[str], life: Seconds, wait: Seconds) -> Claim | None:
        """None where Redis does not answer within `wait`, or has no room."""
        token = os.urandom(8)
        keys = [self._names.lock(key), self._names.waiting(key), *map(self._names.tag, tags)]
        lease_ms = int(LEASE * 1000)
        command: Command = ("EVAL", _CLAIM, len(keys), *keys, token, int(life) + 1, lease_ms, self._channel)
        answer = self._turns.run(command)
        await asyncio.wait({answer}, timeout=max(0.0, wait))
        replies = answer.result() if answer.done() else None
        reply = replies[0] if replies else None
        if not isinstance(reply, list) or len(reply) != 2 + len(tags):
            self.doubt(reply)
            return None
        ours, left_ms, *versions = reply
        return Claim(key, ours == 1, Seconds(left_ms / 1000), tuple(versions), b"".join(versions) + token)

    async def hold(self, claim: Claim) -> None:
        """Renew the lease, until it is cancelled or has lasted too long."""
        for _ in range(int(LONGEST / LEASE * 4)):
            await asyncio.sleep(LEASE / 4)
            self._turns.run(("EVAL", _RENEW, 1, self._names.lock(claim.key), claim.held, int(LEASE * 1000)))

    async def end(self, claim: Claim, stores: Sequence[Command], told: Woken) -> bool:
        """Store, give the claim up, and wake who waits for it; whether it was stored."""
        lock, waiting = self._names.lock(claim.key), self._names.waiting(claim.key)
        end: Command = ("EVAL", _END, 2, lock, waiting, claim.held, told.value + claim.key.encode())
        replies = await self._turns.run(*stores, end)
        if replies is None:
            return False
        wrong = [reply for reply in replies if isinstance(reply, Exception)]
        if wrong:
            self.doubt(wrong[0])
        return not wrong

    def doubt(self, reply: Reply) -> None:
        """What a reply says that was not expected. A server without room still serves and invalidates; one that
        refuses to write for another reason cannot be trusted to invalidate."""
        if isinstance(reply, Exception) and kind_of(reply) == "full":
            self._link.failed("full")
        elif isinstance(reply, Exception):
            self._link.fail(reply)
        elif reply is not None:
            self._link.fail(InvalidResponse(f"{type(reply).__name__} as the answer to a script"))
