"""The assistant in a terminal: replies as they stream in, sources with links, what stands behind a reply.

Covered: conversations of many turns, /why, cancelling a reply, one question for scripts. Not covered: what is said
(`assistant`). Nothing is stored: a conversation ends with the program.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from medtune.assistant.assistant import Assistant
from medtune.types import Event, Message, Reply, Source

STYLES = {"emergency": "bold red", "urgent": "bold yellow", "routine": "green", "not_medical": "dim"}
WIDTH = 100
HELP = {
    "/why": "what the guards said, which passages were used, what was withheld",
    "/new": "begin a new conversation",
    "/help": "these commands",
    "/quit": "end (so does Ctrl-D); Ctrl-C stops a reply",
}


def once(assistant: Assistant, question: str, console: Console, *, as_json: bool) -> None:
    """One question, one reply: streamed for people, or as one JSON object for scripts."""
    asked = (Message("user", question),)
    if as_json:
        print(json.dumps(as_dict(assistant.reply(asked)), ensure_ascii=False, indent=2))
    else:
        show(assistant.stream(asked), console)


def as_dict(reply: Reply) -> dict[str, Any]:
    """The reply's fields, and its plain text."""
    return {**asdict(reply), "text": reply.text}


def chat(assistant: Assistant, name: str, console: Console, ask: Callable[[str], str] | None = None) -> None:
    """Talk until /quit. `ask(prompt)` reads a line; by default the terminal, with its line editing and history."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - importing it is what gives input() its history
    ask = ask or console.input
    console.print(f"[bold]{escape(name)}[/]  [dim]/help shows the commands[/]\n", highlight=False)
    messages: list[Message] = []
    last: Reply | None = None
    while True:
        try:
            line = ask("[bold cyan]You:[/] ").strip()
        except (EOFError, KeyboardInterrupt):
            console.print()
            return
        if line == "/quit":
            return
        if line == "/new":
            messages, last = [], None
            console.print("A new conversation.\n", style="dim")
        elif line == "/why":
            explain(assistant, last, messages, console)
        elif line.startswith("/"):
            for command, meaning in HELP.items():
                console.print(f"  [bold]{command:<6}[/] {meaning}")
        elif line:
            last = _turn(assistant, [*messages, Message("user", line)], console)
            if last is not None:
                messages += [Message("user", line), Message("assistant", last.text)]


def _turn(assistant: Assistant, messages: Sequence[Message], console: Console) -> Reply | None:
    """One reply; None where Ctrl-C stopped it."""
    console.print()
    with contextlib.closing(assistant.stream(messages)) as events:
        try:
            return show(events, console)
        except KeyboardInterrupt:
            console.print("\nStopped.\n", style="dim")
            return None


def show(events: Iterable[Event], console: Console) -> Reply:
    """Print a reply while it comes, then its sources; returns it."""
    writer, alarmed, reply = _Writer(console), False, None
    for event in events:
        if event.verdict is not None:
            alarmed |= event.verdict.guard in ("emergency", "crisis") and event.verdict.verdict
        elif event.kind == "text":
            writer.write(event, alarmed)
        elif event.kind == "sources" and event.sources:
            _show_sources(event.sources, console)
        reply = event.reply or reply
    assert reply is not None
    style = STYLES[reply.urgency]
    note = f"{len(reply.withheld)} sentence(s) withheld, " if reply.withheld else ""
    console.print(
        f"\n[{style}]{reply.urgency.replace('_', ' ')}[/]  [dim]{note}{reply.seconds['total']:.1f} s[/]\n",
        highlight=False,
    )
    return reply


class _Writer:
    """Pieces of text one after the other, wrapped at words across pieces where a person reads them."""

    def __init__(self, console: Console) -> None:
        self.console, self.column = console, 0
        self.width = min(console.width, WIDTH) if console.is_terminal else sys.maxsize

    def write(self, event: Event, alarmed: bool) -> None:
        """The event's text; where it opens a section its first line is the heading."""
        text = event.text.lstrip("\n")
        self._put("\n" * (len(event.text) - len(text)), "")
        heading, line, text = text.rpartition("\n")
        self._put(heading + line, "bold underline")
        quiet = event.section in ("disclosure", "disclaimer")
        self._put(text, "dim italic" if quiet else "red" if alarmed else "yellow" if event.section == "notice" else "")

    def _put(self, text: str, style: str) -> None:
        out = ""
        for part in re.findall(r"\n|[^\S\n]+|\S+", text):
            if part == "\n" or (self.column and self.column + len(part) > self.width):
                out, self.column = out + "\n", 0
            if part != "\n" and (self.column or not part.isspace()):
                out, self.column = out + part, self.column + len(part)
        self.console.print(Text(out, style), end="", soft_wrap=True)


def _show_sources(sources: Sequence[Source], console: Console) -> None:
    """Each title once, with its link and whether somebody with the knowledge has reviewed it."""
    console.print("\n\nSources", style="bold underline")
    for title, url, date, reviewed in dict.fromkeys((s.title, s.url, s.date, s.reviewed) for s in sources):
        flag = f"reviewed {date}".rstrip() if reviewed else "not reviewed by a clinician"
        line = Text.assemble(f"  {title} ", (f"({flag})", "green" if reviewed else "yellow"))
        if url:
            line.append(f" {url}", style=f"cyan link {url}")
        console.print(line, soft_wrap=True)


def explain(assistant: Assistant, reply: Reply | None, messages: Sequence[Message], console: Console) -> None:
    """What stands behind the last reply."""
    if reply is None:
        console.print("Nothing was asked yet.\n", style="dim")
        return
    guards = Table("guard", "fired", "score", "reason", title="Verdicts", title_justify="left")
    for verdict in reply.verdicts:
        fired = "error" if verdict.is_error else "yes" if verdict.verdict else "no"
        said = f"{verdict.kind}: {verdict.reason}" if verdict.kind else verdict.reason
        guards.add_row(verdict.guard, fired, f"{verdict.score:.2f}", escape(said))
    console.print(guards)
    backed = Table("section", "sentence", "support", "score", "passages", title="Sentences", title_justify="left")
    for section in reply.sections:
        for sentence in section.sentences:
            row = (sentence.support, f"{sentence.score:.2f}", ", ".join(sentence.passages))
            backed.add_row(section.name, escape(sentence.text), *row)
    console.print(backed)
    for source in reply.sources:
        console.print(
            f"[bold]{source.id}[/] {escape(source.title)}: {escape(source.quote)}", style="dim", highlight=False
        )
    for held in reply.withheld:
        console.print(Text.assemble(("withheld ", "bold red"), held.text, (f"  ({held.reason})", "dim")))
    steps = ", ".join(f"{step} {seconds * 1000:.0f} ms" for step, seconds in reply.seconds.items())
    asked = sum(message.role == "user" for message in messages)
    console.print(
        f"{steps}; question {asked} of this conversation; assistant {assistant.hash}\n", style="dim", highlight=False
    )
