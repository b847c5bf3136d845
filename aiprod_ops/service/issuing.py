"""The first key of a user, made beside the API by whoever has its database identity."""

import re
from collections.abc import Sequence

from aiprod_ops.errors import UsageError
from aiprod_ops.service import database
from aiprod_ops.service.operations import keys, users
from aiprod_ops.service.settings import Settings
from aiprod_ops.service.validation import EMAIL, safe_text, violations_now


async def issue(settings: Settings, email: str, name: str, tier: str, label: str, scopes: Sequence[str]) -> str:
    """A new key for the user with this address, who is made where there is none, with the tier `free` where `tier` is
    empty. Raises UsageError where there is one with another tier, and what `check_ready` does."""
    if not re.fullmatch(EMAIL, email):
        raise UsageError(f"{email!r} is not an e-mail address", hint="aiprod-ops api-key you@example.org")
    for what, given in (("name", name), ("label", label)):
        for wrong in violations_now(safe_text(what, 120, lines=False), given):
            raise UsageError(f"the {what} cannot be used: {wrong.message} {wrong.fix}")
    engine = database.engine(settings)
    try:
        await database.check_ready(engine)
        async with engine.begin() as transaction:
            found = await users.found(transaction, email)
            if found is not None and tier not in ("", found["tier"]):
                raise UsageError(
                    f"{email} is there already, with the tier {found['tier']}: a key does not change it to {tier}",
                    hint="leave --tier out; an administrator changes it: PATCH /api/v1/users/{user_id}",
                )
            user = found or await users.made(transaction, email, name, tier or "free")
            _, key = await keys.made(transaction, user["id"], label, scopes, None)
        return key
    finally:
        await engine.dispose()
