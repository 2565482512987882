"""Models behind a URL as systems of an evaluation: vLLM, llama.cpp, Ollama, a hosted one, beside the tuned model.

Covered: the same questions, answered greedily in at most as many tokens. Not covered: likelihoods, which the protocol
does not give; what the server does to a prompt. The test questions are sent to that server.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from medtune.errors import PrerequisiteError
from medtune.evaluation.candidates import Candidate
from medtune.evaluation.systems import model_system
from medtune.models.remote import RemoteEngine
from medtune.recipe import Recipe
from medtune.types import Message

GREETING = (Message("user", "Say yes."),)


def endpoints(recipe: Recipe) -> Iterator[Candidate]:
    """A system for each of `evaluate.endpoints`. Raises PrerequisiteError where one does not answer at all."""
    for endpoint in recipe.evaluate.endpoints:
        engine = RemoteEngine(endpoint.url, endpoint.model)
        try:
            _, greeting = next(engine.complete([GREETING], max_new_tokens=4, batch_size=1))
            if greeting.finish_reason == "error":
                raise PrerequisiteError(f"evaluate.endpoints, {endpoint.name}: {greeting.error}")
            system = model_system(endpoint.name, engine, engine.hash, recipe.evaluate.max_new_tokens)
            yield Candidate(dataclasses.replace(system, likelihoods=None), ())
        finally:
            engine.close()
