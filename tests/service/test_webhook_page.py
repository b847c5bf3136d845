"""What the page about webhooks shows works: its receiver takes what is signed, once, and nothing else."""

import asyncio
import re
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from aiprod_ops.domain.webhooks import new_key, shown, signed
from aiprod_ops.service.webhooks import payload

PAGE = Path(__file__).parents[2] / "site/webhooks.md"


def test_the_receiver_of_the_page(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    key, now = new_key(), datetime.now(UTC)
    monkeypatch.setenv("WEBHOOK_SECRET", shown(key))
    [code, *_] = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    room: dict[str, object] = {"__name__": "receiver"}
    exec(compile(code, str(PAGE), "exec", dont_inherit=True), room)  # annotations are read when the route is made
    body = payload("job.created", {"id": "1"}, now)
    headers = signed("0197a1b2-3c4d-7e5f-8a9b-0c1d2e3f4a5b", now, body, [key])
    sent = ((body, headers), (body, headers), (body + b" ", headers), (body, {}))

    async def post() -> list[int]:
        transport = httpx.ASGITransport(app=room["app"])  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://receiver") as client:
            answers = [await client.post("/aiprod", content=content, headers=each) for content, each in sent]
        return [each.status_code for each in answers]

    assert asyncio.run(post()) == [204, 204, 401, 401]
    assert capsys.readouterr().out == "job.created {'id': '1'}\n"
