"""The fields that requests are made of, as types for pydantic: what the schema says is what is checked."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    StringConstraints,
)
from pydantic_core import PydanticCustomError, core_schema

from aiprod_ops.domain import texts, urls
from aiprod_ops.service import validation
from aiprod_ops.service.validation import Rule, violations_now


class Request(BaseModel):
    """A body: nothing is converted, and nothing is let pass that is not known."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


def check_of(rule: Rule) -> Callable[[Any], Any]:
    """A rule of `validation` as a function of pydantic's. The first violation is told: a field has one error."""

    def check(value: Any) -> Any:
        for each in violations_now(rule, value):
            context = {"limit": each.limit, "seen": each.message, "fix": each.fix}
            raise PydanticCustomError(each.rule, "{seen}", context)
        return value

    return check


@dataclass(frozen=True, slots=True)
class Text:
    """Text that is safe to store, to log and to show: `Annotated[str, Text(120)]`. Its length is in characters."""

    longest: int
    lines: bool = True

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        plain = core_schema.str_schema(min_length=1, max_length=self.longest, strict=True)
        rule = validation.safe_text("", self.longest, lines=self.lines)
        return core_schema.no_info_after_validator_function(check_of(rule), plain)

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {**handler(schema), "pattern": texts.SAFE if self.lines else texts.SAFE_LINE}


def _whole(value: Any) -> Any:
    # JSON has one kind of number: 15.0 is an integer there (JSON Schema, "integer").
    return int(value) if isinstance(value, float) and value.is_integer() else value


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole number within limits: `Annotated[int, Whole(1, 60)]`."""

    least: int
    most: int

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        plain = core_schema.int_schema(ge=self.least, le=self.most, strict=True)
        return core_schema.no_info_before_validator_function(_whole, plain)


Url = Annotated[
    str,
    StringConstraints(max_length=urls.LONGEST),
    Field(json_schema_extra={"pattern": urls.PATTERN, "format": "uri", "not": {"pattern": urls.OURS_PATTERN}}),
    AfterValidator(check_of(validation.url(""))),
]
Email = Annotated[str, StringConstraints(max_length=254, pattern=validation.EMAIL)]
Id = Annotated[str, StringConstraints(pattern=validation.UUID), Field(json_schema_extra={"format": "uuid"})]
