"""URLs of endpoints: what is no URL that something can be sent to is refused with the reason, in a lab too."""

from urllib.parse import urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from yarl import URL

from aiprod_ops.domain import urls
from aiprod_ops.service.http.problems import Problem
from aiprod_ops.service.operations.webhooks import require_url
from aiprod_ops.service.settings import Settings

PUBLIC, LAB = Settings(dsn=""), Settings(dsn="", private_webhooks=True)
ODD = st.sampled_from('\0\n\r\t \\"<>^`{|}[]@#%:/?.-_é\u202e\u3002\U0001f600')
PARTS = st.sampled_from(
    ["http://", "https://", "HTTP://", "//", "127.0.0.1", "[::1]", "[::1", "example.org", "a_b", ":8080", ":0",
     ":99999", ":", "user@", "/", "/a?b=c", "/%41", "/%4", "#", "\n", "\0", " "]
)  # fmt: skip
URLS = st.text() | st.lists(PARTS | ODD, max_size=8).map("".join)


@given(URLS, st.booleans())
@example("http://127.0.0.1/\0", True)
@example("http://", True)
@example("https://[::1", True)
@example("http://127.0.0.1/a b", True)
@example("http://127.0.0.1/\n", True)
@example("http://127.0.0.1:0/", True)
@example("https://example.org/\n", False)
def test_what_is_taken_can_be_stored_and_sent_to(text: str, private: bool) -> None:
    settings = LAB if private else PUBLIC
    if urls.uncallable(text, private=private) is not None:
        with pytest.raises(Problem, match="VALIDATION_FAILED") as refused:
            require_url(settings, text)
        [error] = refused.value.errors
        assert error.message.startswith("As a URL, ")
        return
    require_url(settings, text)
    assert text.isascii()
    assert text.isprintable()
    assert not set(text) & set(' \\#"<>^`{|}')
    parts = urlsplit(text)
    assert parts.scheme in (("http", "https") if private else ("https",))
    assert parts.hostname
    assert parts.username is None
    assert URL(text).host
    assert 0 < (URL(text).port or 0) < 65_536


@pytest.mark.parametrize(
    "text",
    [
        "http://127.0.0.1/", "http://127.0.0.1:8080/hooks?a=b", "https://[::1]:8443/%41", "http://receiver:80",
        "http://my_receiver.default.svc/", "https://localhost/", "https://example.org/",
    ],
)  # fmt: skip
def test_a_lab_takes_private_ones(text: str) -> None:
    require_url(LAB, text)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("ftp://127.0.0.1/", "scheme"),
        ("HTTP://127.0.0.1/", "scheme"),
        ("127.0.0.1", "scheme"),
        ("http://", "pattern"),
        ("http:///a", "pattern"),
        ("http://[::1", "pattern"),
        ("http://[::g]/", "pattern"),
        ("http://[1.2.3.4]/", "host"),
        ("http://127.0.0.1:99999/", "port"),
        ("http://user:word@127.0.0.1/", "userinfo"),
        ("http://127.0.0.1/#a", "pattern"),
        ("http://127.0.0.1/a b", "pattern"),
        ("http://127.0.0.1/\n", "pattern"),
        ("http://127.0.0.1/\0", "pattern"),
        ("http://127.0.0.1/%4", "pattern"),
        ("http://127.0.0.1/" + "a" * 2_048, "max_length"),
    ],
)
def test_a_lab_says_why_it_refuses_one(text: str, rule: str) -> None:
    with pytest.raises(Problem, match="url") as refused:
        require_url(LAB, text)
    [error] = refused.value.errors
    assert error.rule == rule
    assert text not in error.message
