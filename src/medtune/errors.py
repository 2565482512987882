"""Every error that medtune raises on purpose.

    MedtuneError
    ├── RecipeError       (ValueError)    the recipe is wrong: unknown key, bad value, two options that conflict
    ├── DataError         (ValueError)    a source is wrong: names file, row and column
    ├── ModelError        (ValueError)    a base model, tokenizer or chat template cannot be used as asked
    ├── TuningError       (RuntimeError)  tuning cannot go on: nothing learns, loss is not a number
    ├── EvaluationError   (RuntimeError)  a measurement cannot be made or would be untrue
    ├── RunDirError       (RuntimeError)  a run's folder is missing, foreign, damaged or out of date
    └── PrerequisiteError (RuntimeError)  something outside is missing: an extra, a device, the network

A message says what was found, what was expected (with the valid names) and what to do. The command line prints
these without a traceback; anything else that escapes is a bug and keeps its traceback.
"""

from __future__ import annotations


class MedtuneError(Exception):
    """Root of the tree; catch it to catch every mistake that medtune explains."""


class RecipeError(MedtuneError, ValueError):
    """The recipe is wrong; the message lists every mistake at once, one per line."""


class DataError(MedtuneError, ValueError):
    """A data source is wrong; the message names file, row and column where there is one."""


class ModelError(MedtuneError, ValueError):
    """A base model, tokenizer or chat template cannot be used as the recipe asks."""


class TuningError(MedtuneError, RuntimeError):
    """Tuning cannot go on and would only waste time."""


class EvaluationError(MedtuneError, RuntimeError):
    """A measurement cannot be made, or would be untrue."""


class RunDirError(MedtuneError, RuntimeError):
    """A run's folder is missing, foreign, damaged or does not fit the recipe."""


class PrerequisiteError(MedtuneError, RuntimeError):
    """Something outside medtune is missing: an optional package, a device, the network."""
