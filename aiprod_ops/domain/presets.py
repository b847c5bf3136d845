"""The three presets, and what each takes: the cross-field rules of a submission, as data."""

from dataclasses import dataclass

LANGUAGES = ("en", "fr", "es", "de", "it", "pt", "ja", "zh", "ko")


@dataclass(frozen=True, slots=True)
class Preset:
    """A kind of video. Durations are in seconds, the prompt's length in characters; the first of `aspect_ratios` is
    what a submission gets that names none. `languages` are those of its voices.
    """

    name: str
    title: str
    shortest_seconds: int
    longest_seconds: int
    usual_seconds: int
    aspect_ratios: tuple[str, ...]
    longest_prompt: int
    languages: tuple[str, ...] = LANGUAGES

    def __post_init__(self) -> None:
        if not 0 < self.shortest_seconds <= self.usual_seconds <= self.longest_seconds:
            raise ValueError(f"{self.name}: the usual duration is not between the shortest and the longest")
        if unknown := set(self.languages) - set(LANGUAGES):
            raise ValueError(f"{self.name}: unknown languages {', '.join(sorted(unknown))}")


PRESETS = (
    Preset("quick_social", "A vertical clip for social feeds, fast", 5, 60, 15, ("9:16", "1:1", "4:5"), 1_000),
    Preset("brand_campaign", "A campaign's film in a brand's own style", 10, 120, 30, ("16:9", "9:16", "1:1"), 2_000),
    Preset("premium_spot", "A spot in broadcast quality", 15, 180, 45, ("16:9", "21:9"), 4_000),
)
BY_NAME = {preset.name: preset for preset in PRESETS}
