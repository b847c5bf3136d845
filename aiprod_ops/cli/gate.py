"""Between a plan and its application: the approval, the confirmation, and the wish to stop."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import click

from aiprod_ops.cli import Terminated
from aiprod_ops.errors import NotApproved


def is_attended() -> bool:
    """Whether somebody sits at a terminal. Python has no `stdin` at all where it was closed."""
    return sys.stdin is not None and sys.stdin.isatty()


def ask(digest: str, command: str) -> None:
    """Ask for the first digits of the digest on a terminal; raises NotApproved elsewhere, and for any other answer."""
    if not is_attended():
        raise NotApproved("nothing was applied: the plan is not approved", hint=command)
    try:
        answer = click.prompt(f"Type {digest[:8]} to apply this plan, anything else to stop", err=True)
    except click.Abort as error:
        raise NotApproved("nothing was applied: the prompt was closed", hint=command) from error
    if answer.strip() != digest[:8]:
        raise NotApproved("nothing was applied: the answer was not the digest", hint=command)


def confirmed(entry: Any, name: str, given: str) -> None:
    """A severe runbook wants the target's name. Raises NotApproved."""
    if entry.book.risk != "severe":
        return
    if not given and is_attended():
        given = click.prompt(f"{entry.id} is severe. Type the target's name to go on", err=True)
    if given != name:
        raise NotApproved(f"{entry.id} is severe and was not confirmed for {name}", hint=f"add --confirm {name}")


@contextmanager
def signals(stop: Any) -> Iterator[None]:
    """The first Ctrl-C (or SIGTERM) finishes or undoes the current action; the second ends the process.

    Before a run has begun to act (its plan may be on trial on a copy, for hours) the first one ends it, too.
    """

    def handle(number: int, _frame: FrameType | None) -> None:
        if stop.signal or not stop.is_acting:
            raise Terminated if number == signal.SIGTERM else KeyboardInterrupt
        stop.signal = number
        click.echo("\nstopping: the current action is finished or undone; once more to end at once", err=True)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
