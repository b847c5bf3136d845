"""Examples of the document: what a client sends and gets, through the whole life of a job. A test validates each."""

from typing import Any

from aiprod_ops.domain.presets import BY_NAME
from aiprod_ops.service.operations.submissions import EXAMPLES

ID = "0197a1b2-3c4d-7e5f-8a9b-0c1d2e3f4a5b"
_HERE = f"/api/v1/jobs/{ID}"
_VIDEO = "https://cdn.example.org/videos/0197a1b2/final_1080p.mp4"

_STATES: dict[str, dict[str, Any]] = {
    "queued": {"progress": 0, "attempts": 0},
    "processing": {"progress": 40, "attempts": 1},
    "completed": {"progress": 100, "attempts": 1, "completed_at": "2026-11-28T12:04:10Z"},
    "failed": {
        "progress": 60,
        "attempts": 3,
        "completed_at": "2026-11-28T12:06:30Z",
        "failure": {"code": "VOICE_SYNTHESIS_ERROR", "message": "the voice provider failed after 3 attempts"},
    },
    "cancelled": {"progress": 20, "attempts": 1, "completed_at": "2026-11-28T12:01:00Z"},
}
VIOLATIONS: dict[str, dict[str, Any]] = {
    "VALIDATION_FAILED": {
        "field": "duration_seconds",
        "rule": "maximum",
        "limit": BY_NAME["quick_social"].longest_seconds,
        "message": "Input should be less than or equal to 60.",
        "fix": "Use at most 60.",
    },
    "INVALID_CONTENT": {
        "field": "prompt",
        "rule": "bidi_override",
        "limit": None,
        "message": "There is U+202E RIGHT-TO-LEFT OVERRIDE at position 17.",
        "fix": "Take it out.",
    },
}


def job(status: str, preset: str = "quick_social") -> dict[str, Any]:
    """A job in a state, as it is answered."""
    is_completed = status == "completed"
    return {
        "id": ID,
        "reference_urls": [],
        **EXAMPLES[preset],
        "status": status,
        "failure": None,
        "created_at": "2026-11-28T12:00:00Z",
        "updated_at": "2026-11-28T12:00:00Z",
        "completed_at": None,
        "batch_id": None,
        "links": {
            "self": _HERE,
            "pipelines": f"{_HERE}/pipelines",
            "result": f"{_HERE}/result" if is_completed else None,
            "download": f"{_HERE}/download" if is_completed else None,
        },
        **_STATES[status],
    }


def result() -> dict[str, Any]:
    """A result, as it is answered."""
    return {
        "id": "0197a1b6-0000-7000-8000-0c1d2e3f4a5b",
        "job_id": ID,
        "video_url": _VIDEO,
        "thumbnail_url": "https://cdn.example.org/thumbnails/0197a1b2.jpg",
        "duration_seconds": 15,
        "size_bytes": 18_403_211,
        "quality_score": 0.93,
        "created_at": "2026-11-28T12:04:10Z",
    }


def batch(status: str) -> dict[str, Any]:
    """A batch in a state, as it is answered."""
    here, has_ended = f"/api/v1/batches/{ID}", status == "completed"
    return {
        "id": ID,
        "status": status,
        "jobs": 500,
        "queued": 0 if has_ended else 290,
        "processing": 0 if has_ended else 10,
        "completed": 498 if has_ended else 199,
        "failed": 2 if has_ended else 1,
        "cancelled": 0,
        "rejected": 1,
        "errors": [
            {
                "item": 12,
                "field": "prompt",
                "rule": "blank",
                "message": "There is nothing to read in it.",
                "fix": "Write something that can be read.",
            }
        ],
        "retry_of": None,
        "progress": 100 if has_ended else 40,
        "eta": None if has_ended else "2026-11-28T12:15:00Z",
        "created_at": "2026-11-28T12:00:00Z",
        "completed_at": "2026-11-28T12:14:10Z" if has_ended else None,
        "links": {
            "self": here,
            "jobs": f"/api/v1/jobs?batch_id={ID}",
            "download": f"{here}/download" if has_ended else None,
        },
    }


def webhook() -> dict[str, Any]:
    """An endpoint, as it is answered."""
    return {
        "id": "0197a1a0-0000-7000-8000-0c1d2e3f4a5b",
        "url": "https://hooks.example.org/aiprod",
        "events": ["job.completed", "job.failed"],
        "description": "Our shop",
        "state": "enabled",
        "why_disabled": None,
        "disabled_at": None,
        "failures_in_a_row": 0,
        "ordered": False,
        "long_tail": True,
        "in_flight": 10,
        "per_second": None,
        "created_at": "2026-11-28T11:00:00Z",
        "updated_at": "2026-11-28T11:00:00Z",
    }


def delivery() -> dict[str, Any]:
    """A delivery whose receiver was busy once, as it is answered."""
    attempt = {"began_at": "2026-11-28T12:04:10.100Z", "milliseconds": 42, "error": None}
    return {
        "id": "0197a1b6-1111-7000-8000-0c1d2e3f4a5b",
        "event_id": "0197a1b6-1111-7fff-8000-aaaaaaaaaaaa",
        "event": "job.completed",
        "state": "delivered",
        "created_at": "2026-11-28T12:04:10Z",
        "due_at": None,
        "ended_at": "2026-11-28T12:04:11.400Z",
        "attempts": [
            {"number": 1, "status": 503, **attempt},
            {"number": 2, "status": 204, **attempt, "began_at": "2026-11-28T12:04:11.300Z"},
        ],
    }


def submissions() -> dict[str, Any]:
    """A submission of each preset."""
    return {name: {"summary": BY_NAME[name].title, "value": value} for name, value in EXAMPLES.items()}


def answers() -> dict[tuple[str, str, str], dict[str, Any]]:
    """Examples of answers, by path, method and status."""
    states = {status: {"summary": f"A job that is {status}", "value": job(status)} for status in _STATES}
    batches = {
        status: {"summary": f"A batch that is {status}", "value": batch(status)}
        for status in ("processing", "completed")
    }
    submitted = {name: {"summary": BY_NAME[name].title, "value": job("queued", name)} for name in EXAMPLES}
    secret = {**webhook(), "secret": "whsec_YSBrZXkgb2YgbW9yZSB0aGFuIDI0IGJ5dGVz"}
    deliveries = {"items": [delivery()], "next_cursor": None}
    return {
        ("/api/v1/webhooks", "post", "201"): {"made": {"summary": "An endpoint with its secret", "value": secret}},
        ("/api/v1/webhooks/{webhook_id}", "get", "200"): {"webhook": {"summary": "An endpoint", "value": webhook()}},
        ("/api/v1/webhooks/{webhook_id}/deliveries", "get", "200"): {
            "page": {"summary": "One that came through at the second attempt", "value": deliveries}
        },
        ("/api/v1/jobs", "post", "201"): submitted,
        ("/api/v1/jobs/{job_id}", "get", "200"): states,
        ("/api/v1/jobs/{job_id}/result", "get", "200"): {"result": {"summary": "A result", "value": result()}},
        ("/api/v1/batches/{batch_id}", "get", "200"): batches,
        ("/api/v1/batches", "post", "201"): {"processing": batches["processing"]},
        ("/api/v1/jobs", "get", "200"): {
            "page": {"summary": "The last part", "value": {"items": [job("completed")], "next_cursor": None}}
        },
    }
