"""What every part of the configuration is made of."""

from __future__ import annotations

import re
from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[int, Field(gt=0)]
NonNegative = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Width = Annotated[int, Field(gt=0, le=1_000_000)]
"""Of a layer or a table. No model is wider; a damaged file may say so, and would fill the memory before it is seen."""
Depth = Annotated[int, Field(gt=0, le=10_000)]

Entries = Annotated[dict[str, Any], Field(default_factory=dict)]
"""Keys and values of another project, empty where there are none."""

FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")
"""Names that become parts of paths: no dot, for a dot would blur where a name ends and a suffix begins."""


class Section(BaseModel):
    """A part of the configuration: closed (unknown keys are errors), immutable, typed, finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _no_switch_for_a_number(cls, content: Any) -> Any:
        """Refuse ``steps: yes``, which YAML reads as true and pydantic would take for 1."""
        for name, value in content.items() if isinstance(content, dict) else ():
            kind = cls.model_fields[name].annotation if name in cls.model_fields else bool
            if isinstance(value, bool) and bool not in (kind, *get_args(kind)):
                raise ValueError(f"{name}: {str(value).lower()} is a switch, which does not belong here")
        return content
