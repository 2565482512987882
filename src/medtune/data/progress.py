"""A progress bar for long work: on a terminal only, and gone when the work is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

EVERY = 256  # rows between two updates, so that the bar costs nothing


@contextmanager
def bar(what: str, total: int | None = None) -> Iterator[Callable[[], None]]:
    """Yields a function to call once per item."""
    console = Console(stderr=True)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=total)
        count = 0

        def advance() -> None:
            nonlocal count
            count += 1
            if count % EVERY == 0:
                progress.update(task, completed=count)

        yield advance
