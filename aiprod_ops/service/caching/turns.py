"""What one turn of the event loop wants of Redis goes in one round trip: reads as one MGET, commands behind it.

A hundred requests that come together cost one write, one read and one wake-up, and not a hundred of each.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from redis.exceptions import InvalidResponse

from aiprod_ops.service.caching.connection import Command, Link, Reply

#: So many round trips are under way at once; what comes meanwhile waits for the next, and is joined in it.
_UNDER_WAY = 8
_MOST_KEYS = 1000  #: of one MGET: Redis serves nobody else meanwhile


@dataclass(slots=True)
class _Group:
    """What one caller wants: values of `names`, then the replies of `commands`."""

    names: Sequence[str]
    commands: Sequence[Command]
    answer: "asyncio.Future[list[Reply] | None]"


class Turns:
    """Of one link. An answer is None where Redis is left alone or did not answer."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._waiting: list[_Group] = []
        self._is_due = False
        self._tasks: set[asyncio.Task[None]] = set()

    def read(self, names: Sequence[str]) -> "asyncio.Future[list[Reply] | None]":
        """The value of each name, or None of one that is not there."""
        return self._join(names, ())

    def run(self, *commands: Command) -> "asyncio.Future[list[Reply] | None]":
        """The reply of each command, in this order; an error is a reply."""
        return self._join((), commands)

    def _join(self, names: Sequence[str], commands: Sequence[Command]) -> "asyncio.Future[list[Reply] | None]":
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[Reply] | None] = loop.create_future()
        if not self._link.breaker.is_closed:
            answer.set_result(None)
            return answer
        self._waiting.append(_Group(names, commands, answer))
        if not self._is_due and len(self._tasks) < _UNDER_WAY:
            self._send(loop)
        return answer

    def _send(self, loop: asyncio.AbstractEventLoop) -> None:
        """At the next turn of the loop: what wants to be joined until then is."""
        self._is_due = True
        task = loop.create_task(self._answer())
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if self._waiting and not self._is_due:
            self._send(task.get_loop())

    async def _answer(self) -> None:
        self._is_due = False
        groups, self._waiting = self._waiting, []
        try:
            replies = await self._link.ask(_commands(names := _names(groups), groups))
            found = None if replies is None else self._values(names, replies)
            rest = iter(() if replies is None else replies[-(-len(names) // _MOST_KEYS) :])
            for group in groups:
                answer = None if found is None else [found[name] for name in group.names]
                if answer is not None:
                    answer += [next(rest) for _ in group.commands]
                if not group.answer.done():
                    group.answer.set_result(answer)
        finally:
            for group in groups:  # of a loop that is being stopped
                if not group.answer.done():
                    group.answer.set_result(None)

    def _values(self, names: list[str], replies: list[Reply]) -> dict[str, Reply] | None:
        """What MGET said, if that is what MGET says."""
        found: dict[str, Reply] = {}
        for start in range(0, len(names), _MOST_KEYS):
            part, reply = names[start : start + _MOST_KEYS], replies[start // _MOST_KEYS]
            if not isinstance(reply, list) or len(reply) != len(part):
                wrong = InvalidResponse(f"{type(reply).__name__} as the answer to MGET, expected a list of {len(part)}")
                self._link.fail(reply if isinstance(reply, Exception) else wrong)
                return None
            found.update(zip(part, reply, strict=True))
        return found

    async def close(self) -> None:
        """Wait for what is under way."""
        if self._tasks:
            await asyncio.wait(self._tasks)


def _names(groups: Sequence[_Group]) -> list[str]:
    return list(dict.fromkeys(name for group in groups for name in group.names))


def _commands(names: list[str], groups: Sequence[_Group]) -> list[Command]:
    reads: list[Command] = [("MGET", *names[start : start + _MOST_KEYS]) for start in range(0, len(names), _MOST_KEYS)]
    return reads + [command for group in groups for command in group.commands]
