"""Rules for what strangers send: small, composable, sync or async, and errors that say how to fix it.

A rule is a function of a value that answers the violations it finds. `every` collects all of several rules', `first`
stops at the first one that finds something; both are rules again. None backtracks: each is linear in what it reads.
"""

import inspect
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiprod_ops.domain import texts, urls
from aiprod_ops.domain.presets import Preset

Limit = str | int | float | list[str] | None


@dataclass(frozen=True, slots=True)
class Violation:
    """A field that breaks a rule. `rule` is a stable code; `limit` what the rule allows; `message` tells what was seen,
    without repeating it.
    """

    field: str
    rule: str
    limit: Limit
    message: str
    fix: str

    def as_json(self) -> dict[str, Limit]:
        return {
            "field": self.field, "rule": self.rule, "limit": self.limit, "message": self.message, "fix": self.fix
        }  # fmt: skip


Found = Iterable[Violation]
Rule = Callable[[Any], Found | Awaitable[Found]]


def every(*rules: Rule) -> Rule:
    """All rules, whatever the others find."""
    return lambda value: _run(rules, value, stops=False)


def first(*rules: Rule) -> Rule:
    """The rules in turn, until one finds something: the expensive ones last."""
    return lambda value: _run(rules, value, stops=True)


def _run(rules: Sequence[Rule], value: Any, *, stops: bool) -> Found | Awaitable[Found]:
    found: list[Violation] = []
    for number, rule in enumerate(rules):
        answer = rule(value)
        if inspect.isawaitable(answer):
            return _go_on(answer, rules[number + 1 :], value, found, stops=stops)
        found += answer
        if found and stops:
            break
    return found


async def _go_on(
    answer: Awaitable[Found], rest: Sequence[Rule], value: Any, found: list[Violation], *, stops: bool
) -> Found:
    found += await answer
    if not (found and stops):
        found += await violations(first(*rest) if stops else every(*rest), value)
    return found


async def violations(rule: Rule, value: Any) -> tuple[Violation, ...]:
    """What a rule finds, whether it has to wait for it or not."""
    answer = rule(value)
    return tuple(await answer if inspect.isawaitable(answer) else answer)


def violations_now(rule: Rule, value: Any) -> tuple[Violation, ...]:
    """The same where nothing can be awaited; raises TypeError for a rule that has to wait."""
    looking = violations(rule, value)
    try:
        looking.send(None)
    except StopIteration as done:
        found: tuple[Violation, ...] = done.value
        return found
    looking.close()
    raise TypeError("a rule has to wait: use `await violations(…)`")


def safe_text(field: str, longest: int, *, lines: bool = True) -> Rule:
    """Not blank, no longer than so many characters, and nothing in it that reads otherwise than it is stored."""

    def rule(text: str) -> Found:
        if len(text) > longest:
            yield Violation(
                field, "max_length", longest, f"It has {len(text)} characters.", f"Shorten it to {longest} characters."
            )
        elif texts.is_blank(text):
            yield Violation(field, "blank", None, "There is nothing to read in it.", "Write something.")
        for each in texts.unsafe(text, lines=lines):
            yield Violation(
                field, each.rule, None, f"There is {each.name} at position {each.position}.", "Take it out."
            )
            break  # one is enough to know; a long text may hold thousands

    return rule


#: Rules whose breaking is INVALID_CONTENT.
TEXT_RULES = frozenset({"blank", "control_character", "bidi_override", "lone_surrogate", "line_break"})

EMAIL = r"^[A-Za-z0-9._%+-]{1,64}@([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z]{2,63}$"
UUID = r"^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$"
IDEMPOTENCY_KEY = r"^[!-~]{1,255}$"  #: visible ASCII. Source: Stripe API reference, "Idempotent requests"
REQUEST_ID = r"^[A-Za-z0-9._-]{1,128}$"
CURSOR = r"^[A-Za-z0-9_-]{43}$"


def pattern(field: str, expression: str, expected: str) -> Rule:
    """The whole value has this form, which `expected` tells in words."""
    compiled = re.compile(expression)

    def rule(text: str) -> Found:
        if not compiled.fullmatch(text):
            yield Violation(field, "pattern", expression, f"It is not {expected}.", f"Send {expected}.")

    return rule


def choice(field: str, allowed: Sequence[str]) -> Rule:
    """One of these, exactly."""

    def rule(text: str) -> Found:
        if text not in allowed:
            yield _not_among(field, allowed)

    return rule


def _not_among(field: str, allowed: Sequence[str]) -> Violation:
    return Violation(field, "choice", list(allowed), "It is none of the allowed values.", f"Use {_or(allowed)}.")


def url(field: str) -> Rule:
    """An https URL with a public name. Where it leads is looked at when it is used: see `destinations`."""
    return _url(field, urls.wrong, "Use an https:// URL with a public DNS name, on port 443.")


def endpoint_url(field: str, *, private: bool = False) -> Rule:
    """The same for a URL that we send something to. `private` is a lab's: http, and any host and port."""
    kind = (
        "an http:// or https:// URL with a host" if private else "an https:// URL with a public DNS name, on port 443"
    )
    fix = f"Use {kind}, with its path and query encoded, and without a fragment."
    return _url(field, lambda text: urls.uncallable(text, private=private), fix)


def _url(field: str, judge: Callable[[str], tuple[str, str] | None], fix: str) -> Rule:
    def rule(text: str) -> Found:
        if (broken := judge(text)) is not None:
            name, seen = broken
            yield Violation(field, name, urls.LONGEST if name == "max_length" else None, f"As a URL, {seen}.", fix)

    return rule


def fits(preset: Preset) -> Rule:
    """The cross-field rules of a preset, on a submission as a mapping."""
    shortest, longest = preset.shortest_seconds, preset.longest_seconds

    def duration(job: Mapping[str, Any]) -> Found:
        seconds = job.get("duration_seconds", preset.usual_seconds)
        if not shortest <= seconds <= longest:
            rule, limit = ("minimum", shortest) if seconds < shortest else ("maximum", longest)
            yield Violation("duration_seconds", rule, limit, f"A {preset.name} of {seconds} s is not made.",
                            f"Use {shortest} to {longest} s, or another preset.")  # fmt: skip

    return every(
        duration,
        lambda job: choice("aspect_ratio", preset.aspect_ratios)(job.get("aspect_ratio", preset.aspect_ratios[0])),
        lambda job: choice("language", preset.languages)(job.get("language", preset.languages[0])),
        lambda job: safe_text("prompt", preset.longest_prompt)(job.get("prompt", "")),
    )


def _or(values: Sequence[str]) -> str:
    return values[0] if len(values) == 1 else f"{', '.join(values[:-1])} or {values[-1]}"


#: pydantic's type of an error → our rule, where the limit stands in its context, and how to fix it.
_FROM_PYDANTIC: dict[str, tuple[str, str, str]] = {
    "missing": ("required", "", "Add it."),
    "union_tag_not_found": ("required", "", "Add it."),
    "extra_forbidden": ("unknown_field", "", "Take it out, or correct its name."),
    "string_too_short": ("min_length", "min_length", "Make it at least {limit} characters long."),
    "string_too_long": ("max_length", "max_length", "Shorten it to {limit} characters."),
    "string_pattern_mismatch": ("pattern", "pattern", "Give it the form that the limit tells."),
    "string_unicode": ("lone_surrogate", "", "Send whole Unicode characters."),
    "literal_error": ("choice", "expected", ""),
    "enum": ("choice", "expected", ""),
    "union_tag_invalid": ("choice", "expected_tags", ""),
    "greater_than_equal": ("minimum", "ge", "Use at least {limit}."),
    "less_than_equal": ("maximum", "le", "Use at most {limit}."),
    "too_short": ("min_items", "min_length", "Send at least {limit}."),
    "too_long": ("max_items", "max_length", "Send at most {limit}."),
}


def from_pydantic(error: Mapping[str, Any]) -> Violation:
    """One of pydantic's errors as ours. What was sent is not repeated: it may be secret, or hold control characters."""
    kind, context = str(error["type"]), error.get("ctx") or {}
    field = _field(error["loc"], str(context.get("discriminator", "")).strip("'"))
    if "fix" in context:  # a rule of ours, through `service.fields`
        return Violation(field, kind, context.get("limit"), context["seen"], context["fix"])
    if kind in _FROM_PYDANTIC:
        rule, where, fix = _FROM_PYDANTIC[kind]
        if rule == "choice":
            return _not_among(field, _QUOTED.findall(str(context.get(where))))
        limit = context.get(where)
        seen = "It is missing." if rule == "required" else f"{error['msg']}."
        return Violation(field, rule, limit, seen, fix.format(limit=limit))
    if kind.endswith(("_type", "_parsing")) or kind in ("int_from_float", "model_attributes_type"):
        expected = kind.removesuffix("_type").removesuffix("_parsing").removesuffix("_attributes")
        wanted = {"model": "object", "dict": "object", "int_from_float": "int"}.get(expected, expected)
        return Violation(field, "type", wanted, f"{error['msg']}.", f"Send a value of type {wanted}.")
    return Violation(field, "invalid", None, f"{error['msg']}.", "Look at the schema of this field.")


_QUOTED = re.compile(r"'([^']*)'")


def _field(place: Sequence[str | int], discriminator: str) -> str:
    """`("body", "quick_social", "prompt")` as `prompt`: neither where it was nor the variant is the field's name."""
    parts = list(place[1:] if place[0] in _PLACES else place)
    if parts and parts[0] in _VARIANTS:
        parts = parts[1:]
    if discriminator:
        parts.append(discriminator)
    return shown(".".join(map(str, parts)) or str(place[0]))


def shown(name: str) -> str:
    """A name that a stranger chose, so that it can stand in an answer and in a log.

    >>> shown("colour"), shown("a" + chr(0x202E)), shown("x" * 100)
    ('colour', 'a\\\\u202e', 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…')
    """
    plain = name[:65].encode("unicode_escape").decode()
    return plain if len(plain) <= 64 else f"{plain[:64]}…"


_PLACES = ("body", "query", "path", "header", "cookie")
_VARIANTS = ("quick_social", "brand_campaign", "premium_spot")
