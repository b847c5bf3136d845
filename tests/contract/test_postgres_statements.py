"""Texts of statements as a check may show them: without what somebody typed into a utility statement."""

from typing import Any

import pytest

from aiprod_ops.adapters.postgres.statements import Access, texts

ACCESS = Access("public", has_info=True, is_usable=True, columns=(), missing=())


def shown(text: str) -> str:
    def query(name: str, values: Any, names: Any) -> list[dict[str, Any]]:
        assert (name, values["query_ids"]) == ("statement_texts", [7])
        return [{"query_id": 7, "query": text}]

    return texts(query, ACCESS, [7])[7]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    [
        "ALTER ROLE ops PASSWORD 's3cret'",
        "create role monitor login password 's3cret' valid until 'infinity'",
        "COMMENT ON TABLE jobs IS 's3cret'",
        "CREATE USER MAPPING FOR app SERVER far OPTIONS (user 'app', password 's3cret')",
        "SET app.token = 's3cret'",
        "ALTER ROLE ops PASSWORD 's3cret",
        "DO $$ BEGIN PERFORM 's3cret'; END $$",
    ],
)
def test_no_constant_of_a_utility_statement(text: str) -> None:
    assert "s3cret" not in shown(text)
    assert shown(text).split()[0].lower() == text.split()[0].lower()


@pytest.mark.parametrize(
    "text", ["SELECT $1 /* kept */ FROM jobs", "  with x as (select 1) select * from x", "DELETE FROM jobs"]
)
def test_what_the_server_has_normalised_is_as_it_is(text: str) -> None:
    assert shown(text) == text
