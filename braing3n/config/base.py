"""What all settings share."""

from __future__ import annotations

import warnings

from pydantic import BaseModel, ConfigDict

# The section is named after its step; that it hides ABCMeta.register on instances does no harm.
warnings.filterwarnings("ignore", message='Field name "register" in "PreprocessSettings"')


class Settings(BaseModel):
    """A section of the configuration: unknown keys are errors, values are frozen once read."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True)
