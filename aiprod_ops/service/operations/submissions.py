"""What a job is submitted with: a model for each preset, so that its cross-field rules are in the OpenAPI document."""

from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, create_model

from aiprod_ops.domain.jobs import Priority
from aiprod_ops.domain.presets import PRESETS, Preset
from aiprod_ops.service.http.fields import Request, Text, Url, Whole

PriorityName = Literal["low", "medium", "high", "urgent"]
MOST_REFERENCES = 5
LONGEST_TITLE = 120

EXAMPLES: dict[str, dict[str, Any]] = {
    "quick_social": {
        "preset": "quick_social",
        "prompt": "A ceramic coffee cup in morning light, steam rising. Bold, quick cuts; end on the logo.",
        "title": "Morning cup, week 48",
        "language": "en",
        "priority": "medium",
        "duration_seconds": 15,
        "aspect_ratio": "9:16",
    },
    "brand_campaign": {
        "preset": "brand_campaign",
        "prompt": "Une cabane en montagne à l'aube. Lent, cinématographique; laisser place à un appel à la fin.",
        "title": "Refuge",
        "language": "fr",
        "priority": "high",
        "duration_seconds": 45,
        "aspect_ratio": "16:9",
        "reference_urls": ["https://cdn.example.org/brand/style.png"],
    },
    "premium_spot": {
        "preset": "premium_spot",
        "prompt": "An electric city car crosses a wet city at night. Elegant, monochrome, one continuous dolly shot.",
        "title": "Night drive",
        "language": "de",
        "priority": "urgent",
        "duration_seconds": 60,
        "aspect_ratio": "21:9",
        "reference_urls": ["https://cdn.example.org/car/front.jpg", "https://cdn.example.org/car/side.jpg"],
    },
}


class Submission(Request):
    """What every job has. `reference_urls` are images that the video should look like; they are fetched by a worker."""

    preset: str
    prompt: str
    duration_seconds: int
    aspect_ratio: str
    language: str = "en"
    title: Annotated[str, Text(LONGEST_TITLE, lines=False)] | None = None
    priority: PriorityName = Priority.MEDIUM.value
    reference_urls: Annotated[list[Url], Field(max_length=MOST_REFERENCES)] = Field(default_factory=list)


def _model(preset: Preset) -> type[Submission]:
    """The submission of one preset."""
    name = "".join(word.capitalize() for word in preset.name.split("_"))
    whole = Whole(preset.shortest_seconds, preset.longest_seconds)
    fields: dict[str, Any] = {
        "preset": (Literal[preset.name], ...),
        "prompt": (Annotated[str, Text(preset.longest_prompt)], Field(description="What the video shows, and how.")),
        "duration_seconds": (Annotated[int, whole], Field(preset.usual_seconds, description="Seconds.")),
        "aspect_ratio": (Literal[preset.aspect_ratios], preset.aspect_ratios[0]),
        "language": (Literal[preset.languages], Field(preset.languages[0], description="Of the voice.")),
    }
    made: type[Submission] = create_model(
        f"{name}Submission", __base__=Submission, __doc__=preset.title + ".", **fields
    )
    made.model_config["json_schema_extra"] = {"examples": [EXAMPLES[preset.name]]}
    made.model_rebuild(force=True)
    return made


MODELS = {preset.name: _model(preset) for preset in PRESETS}
if TYPE_CHECKING:
    AnySubmission = Submission
else:
    AnySubmission = Annotated[reduce(or_, MODELS.values()), Field(discriminator="preset")]


class JobChange(Request):
    """What may be changed of a job: its title always, its priority while it waits."""

    title: Annotated[str, Text(LONGEST_TITLE, lines=False)] | None = None
    priority: PriorityName | None = None
