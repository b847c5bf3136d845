"""Rules one by one, chained, and as what the document says of them."""

import asyncio
import re
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from aiprod_ops.domain import texts, urls
from aiprod_ops.domain.presets import BY_NAME, PRESETS
from aiprod_ops.service import validation
from aiprod_ops.service.operations.submissions import EXAMPLES, MODELS
from aiprod_ops.service.validation import (
    Found,
    Rule,
    Violation,
    choice,
    every,
    first,
    fits,
    pattern,
    safe_text,
    url,
    violations,
    violations_now,
)

PATTERNS = [
    texts.SAFE, texts.SAFE_LINE, urls.PATTERN, urls.OURS_PATTERN, urls.ENDPOINT_PATTERN, urls.LAB_PATTERN,
    validation.EMAIL, validation.UUID, validation.IDEMPOTENCY_KEY, validation.REQUEST_ID, validation.CURSOR,
]  # fmt: skip


def saying(name: str, calls: list[str]) -> Rule:
    def rule(_: str) -> Found:
        calls.append(name)
        return [Violation("f", name, None, "seen", "fix")]

    return rule


def later(rule: Rule) -> Rule:
    async def waits(value: str) -> Found:
        await asyncio.sleep(0)
        return await violations(rule, value)

    return waits


def silent(_: str) -> Found:
    return []


@pytest.mark.parametrize("how", [lambda rule: rule, later], ids=["sync", "async"])
def test_chained(how: Callable[[Rule], Rule]) -> None:
    calls: list[str] = []
    a, b, c = (saying(name, calls) for name in "abc")
    found = asyncio.run(violations(every(silent, how(a), first(silent, b, c)), "x"))
    assert [each.rule for each in found] == calls == ["a", "b"]
    calls.clear()
    found = asyncio.run(violations(first(silent, every(how(a), b), how(c)), "x"))
    assert [each.rule for each in found] == calls == ["a", "b"]


def test_a_rule_that_waits_where_nothing_can() -> None:
    with pytest.raises(TypeError, match="await violations"):
        violations_now(every(silent, later(silent)), "x")


@pytest.mark.parametrize(
    ("rule", "value", "code", "limit"),
    [
        (safe_text("f", 3), "abcd", "max_length", 3),
        (safe_text("f", 9), "a\0", "control_character", None),
        (safe_text("f", 9), "a\x9b", "control_character", None),
        (safe_text("f", 9), "a\u2066", "bidi_override", None),
        (safe_text("f", 9), "\u3000\n", "blank", None),
        (safe_text("f", 9, lines=False), "a\nb", "line_break", None),
        (pattern("f", validation.EMAIL, "an address"), "a@b", "pattern", validation.EMAIL),
        (choice("f", ["a", "b"]), "c", "choice", ["a", "b"]),
        (url("f"), "http://example.org", "https", None),
        (url("f"), "https://a.internal/", "private_name", None),
    ],
)
def test_rules(rule: Rule, value: str, code: str, limit: object) -> None:
    [found] = violations_now(rule, value)
    assert (found.field, found.rule, found.limit) == ("f", code, limit)
    assert found.message
    assert found.fix


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.name)
def test_presets_say_in_the_schema_what_their_rules_say(preset: object) -> None:
    name, rules = preset.name, fits(preset)  # type: ignore[attr-defined]
    for changes, fields in (
        ({}, set()),
        ({"duration_seconds": 1}, {"duration_seconds"}),
        ({"duration_seconds": 1_000}, {"duration_seconds"}),
        ({"aspect_ratio": "3:2", "language": "xx"}, {"aspect_ratio", "language"}),
        ({"prompt": "x" * 4_001}, {"prompt"}),
    ):
        job = {**EXAMPLES[name], **changes}
        assert {each.field for each in violations_now(rules, job)} == fields
        try:
            MODELS[name].model_validate(job)
            seen = set()
        except ValidationError as error:
            seen = {str(each["loc"][-1]) for each in error.errors()}
        assert seen == fields


def test_a_preset_with_fewer_languages() -> None:
    rules = fits(replace(BY_NAME["premium_spot"], languages=("en", "fr")))
    [found] = violations_now(rules, {**EXAMPLES["premium_spot"], "language": "ko"})
    assert (found.field, found.limit, found.fix) == ("language", ["en", "fr"], "Use en or fr.")


ANY_TEXT = st.text(st.characters(exclude_categories=())) | st.text(st.sampled_from("a \n\t\r\0\u202e\u2028\u3000\x85é"))


@given(ANY_TEXT, st.booleans())
def test_the_pattern_of_the_document_is_the_check(text: str, lines: bool) -> None:
    shape = texts.SAFE if lines else texts.SAFE_LINE
    allowed = re.fullmatch(shape.removesuffix("$"), text) is not None and not re.search("[\ud800-\udfff]", text)
    assert allowed is not bool(violations_now(safe_text("f", 10_000, lines=lines), text))


@given(st.from_regex(urls.PATTERN, fullmatch=True, alphabet=st.characters(max_codepoint=127)))
def test_urls_of_the_pattern_are_right_or_private(text: str) -> None:
    wrong = urls.wrong(text)
    assert (wrong is None) is (re.search(urls.OURS_PATTERN, text) is None) or len(text) > urls.LONGEST, wrong


@pytest.mark.parametrize("expression", PATTERNS)
def test_no_pattern_backtracks(expression: str) -> None:
    """In Python's engine, which can; 20,000 characters take microseconds where it does not, hours where it does."""
    compiled = re.compile(expression)
    begun = time.monotonic()
    for part in ("a", " ", "a.", "a-", "0", "\u3000", "/", "https://a.", "a@", "-"):
        for end in ("", "\0", "!", "\n"):
            compiled.search("https://" + part * 20_000 + end)
            compiled.search(part * 20_000 + end)
    assert time.monotonic() - begun < 5


def test_numbers_as_json_has_them() -> None:
    adapter: TypeAdapter[object] = TypeAdapter(MODELS["quick_social"])
    for value in (15, 15.0):
        made = adapter.validate_python({"preset": "quick_social", "prompt": "x", "duration_seconds": value})
        assert made.duration_seconds == 15  # type: ignore[attr-defined]
    for value in (15.5, "15", True, None, float("nan"), 10**400):
        with pytest.raises(ValidationError):
            adapter.validate_python({"preset": "quick_social", "prompt": "x", "duration_seconds": value})
