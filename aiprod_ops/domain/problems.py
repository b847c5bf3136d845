"""Everything that can go wrong with a request or with a job, by its code: one catalogue for answers, OpenAPI and docs.

The codes are an API: a client decides by them. A code is never renamed, and never gets another meaning.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of problem. `status` is HTTP's, None where a job fails and no request; `again` tells whether the same
    request, or the same job, may succeed when it is sent again unchanged.
    """

    code: str
    status: int | None
    title: str
    cause: str
    fix: str
    again: bool = False


CATALOGUE = (
    Kind("INVALID_JSON", 400, "The body is not JSON",
         "It does not parse, is not UTF-8, or is nested too deeply.", "Send JSON, encoded as UTF-8."),
    Kind("INVALID_CURSOR", 400, "The cursor is not one of ours",
         "It was altered, or belongs to a list with other filters or of another user.",
         "Begin again without a cursor; use next_cursor as it was answered, with the same filters."),
    Kind("UNAUTHENTICATED", 401, "There is no valid API key",
         "The Authorization header is missing, or its key is unknown, revoked or expired.",
         "Send `Authorization: Bearer YOUR_API_KEY`."),
    Kind("INSUFFICIENT_SCOPE", 403, "The API key may not do this",
         "The operation needs a scope that the key does not have.", "Use a key with the scope that `detail` names."),
    Kind("NOT_FOUND", 404, "There is nothing here",
         "The path or the id is wrong, or it belongs to somebody else.", "Look at the id; list what is yours."),
    Kind("METHOD_NOT_ALLOWED", 405, "The path does not have this method",
         "The path exists, with other methods.", "Use one of the methods in the Allow header."),
    Kind("JOB_STATE_CONFLICT", 409, "The job's state does not allow it",
         "A job that has ended cannot be changed or cancelled; one that is in work keeps its priority.",
         "Read the job again; submit a new one."),
    Kind("JOB_NOT_COMPLETED", 409, "The job has no result yet",
         "Its status is not completed.", "Wait until its status is completed, then ask again.", again=True),
    Kind("BATCH_STATE_CONFLICT", 409, "The batch's state does not allow it",
         "One that has ended cannot be cancelled; one without failed jobs, or tried again already, has nothing to try.",
         "Read the batch again; submit a new one."),
    Kind("BATCH_NOT_ENDED", 409, "The batch has not ended",
         "Some of its jobs have not.", "Wait until its status is completed or cancelled, then ask again.", again=True),
    Kind("EMAIL_TAKEN", 409, "There is a user with this address",
         "Addresses are unique, whatever their case.", "Use the user that is there."),
    Kind("WEBHOOK_DISABLED", 409, "The endpoint is disabled",
         "Nothing is sent to it: it failed too often, answered 410, or its owner disabled it.",
         "Repair the receiver, then POST to its `enable`."),
    Kind("TOO_MANY_WEBHOOKS", 409, "You have as many endpoints as there may be",
         "One user has so many at the most.", "Delete one; one endpoint can be sent every event."),
    Kind("TOO_MANY_SECRETS", 409, "The endpoint has as many secrets as there may be",
         "Each rotation within the overlap of those before adds one, and each counts until its overlap ends.",
         "Wait until the first one ends (`detail` tells when), or rotate with `overlap_seconds` 0."),
    Kind("IDEMPOTENCY_KEY_IN_FLIGHT", 409, "The same request is being worked on",
         "Another request with this Idempotency-Key has not ended.",
         "Wait as long as Retry-After says, then send it again: it answers what the first one did.", again=True),
    Kind("IDEMPOTENCY_KEY_REUSED", 409, "The Idempotency-Key belongs to another request",
         "It was used with another method, path or body within 24 hours.", "Make a new key for each new request."),
    Kind("PRECONDITION_FAILED", 412, "It was changed meanwhile",
         "The If-Match header does not name the present version.", "Read it again, then decide again."),
    Kind("PAYLOAD_TOO_LARGE", 413, "The body is too large",
         "It has more bytes than a request may have.", "Send less; `detail` tells the limit."),
    Kind("UNSUPPORTED_MEDIA_TYPE", 415, "The body is of the wrong type",
         "The Content-Type header is not application/json, or names another charset than utf-8.",
         "Send `Content-Type: application/json`, encoded as UTF-8."),
    Kind("RANGE_NOT_SATISFIABLE", 416, "The range is outside of what there is",
         "The Range header begins after the last byte.", "Look at Content-Range: it tells how many bytes there are."),
    Kind("VALIDATION_FAILED", 422, "A field does not follow the rules",
         "`errors` names each field, the rule, its limit and how to fix it.", "Change the fields that are named."),
    Kind("INVALID_CONTENT", 422, "A text has something in it that it must not have",
         "Control characters, NUL or bidirectional overrides, or there is nothing to read in it.",
         "Take the characters out; `errors` names the field, the place and the character."),
    Kind("RATE_LIMITED", 429, "Too many requests",
         "The tier's limit is used up.", "Wait as long as Retry-After says.", again=True),
    Kind("CONCURRENT_JOBS_EXCEEDED", 429, "Too many jobs at a time",
         "The tier allows so many jobs that have not ended.", "Wait for one to end, or cancel one.", again=True),
    Kind("MONTHLY_QUOTA_EXCEEDED", 429, "The month's cost units are used up",
         "The tier allows so many in a month (UTC).", "Wait for the next month, or change the tier.", again=True),
    Kind("BATCH_TOO_LARGE", 422, "Too many jobs in one batch",
         "The tier allows so many.", "Divide it."),
    Kind("INTERNAL_ERROR", 500, "This is our fault",
         "Something happened that should not.", "Send it again; if it stays, tell us the request_id.", again=True),
    Kind("SERVICE_UNAVAILABLE", 503, "The service cannot answer now",
         "The database does not answer, everything is busy, or there is no room on a disk.",
         "Wait as long as Retry-After says.", again=True),
    Kind("VOICE_SYNTHESIS_ERROR", None, "The voice could not be made",
         "The text cannot be spoken in the language, or the provider failed.",
         "Check that the prompt is in the job's language; submit again.", again=True),
    Kind("CONTENT_REFUSED", None, "Moderation refused the content",
         "The prompt asks for something that is not allowed.", "Change the prompt."),
    Kind("PROVIDER_TIMEOUT", None, "A provider did not answer in time",
         "Every attempt took too long.", "Submit again.", again=True),
    Kind("RENDERING_ERROR", None, "The video could not be rendered",
         "A node was lost, or a clip could not be decoded.", "Submit again.", again=True),
    Kind("PROCESSING_ERROR", None, "The job failed",
         "A stage failed for a reason that has no code of its own.", "Submit again; if it stays, tell us the job's id.",
         again=True),
)  # fmt: skip
BY_CODE = {kind.code: kind for kind in CATALOGUE}
OF_REQUESTS = tuple(kind for kind in CATALOGUE if kind.status is not None)
OF_JOBS = tuple(kind for kind in CATALOGUE if kind.status is None)
