"""The page: chat, compare and report as tabs, one page for each language, mounted in the application.

Covered: layout, theme without fonts from elsewhere, login where the server has keys. Not covered: the tabs themselves
(`chat`, `compare`), HTML (`render`), the headers that keep a browser from calling elsewhere (`gateway`).
"""

from __future__ import annotations

import os
from collections.abc import Callable

import gradio as gr
from fastapi import FastAPI

from medtune.serving.gateway import Access
from medtune.serving.page import render
from medtune.serving.page.chat import Chat
from medtune.serving.page.compare import Compare
from medtune.serving.page.texts import Texts, languages, texts
from medtune.serving.service import Service

FONTS = ("system-ui", "-apple-system", "Segoe UI", "sans-serif")

# Gradio's own button would be too pale for its white text.
COLOURS = dict.fromkeys(("button_primary_background_fill", "button_primary_background_fill_dark"), "#1d4ed8")
LANGUAGE = "() => {{ document.documentElement.lang = '{code}'; document.documentElement.dir = '{direction}' }}"


def mount(app: FastAPI, service: Service, access: Access, language: str) -> None:
    """Mount the page at `/` in `language` and at `/<code>` in every other one."""
    for code in sorted(
        languages(), key=lambda code: code == language
    ):  # the root last: it takes every path that is left
        shown = texts(code)
        gr.mount_gradio_app(
            app,
            build(service, access, shown, language),
            path="/" if code == language else f"/{code}",
            auth=_login(access),
            auth_message=shown["title"],
            footer_links=[],
            run_history=False,
            show_error=False,
            ssr_mode=False,
            enable_monitoring=False,
            mcp_server=False,
            theme=gr.themes.Default(primary_hue="blue", font=FONTS, font_mono=("ui-monospace", "monospace")).set(
                **COLOURS
            ),
            css_paths=[render.HERE / "page.css"],
            js=LANGUAGE.format(code=code, direction=shown["direction"]),
        )


def build(service: Service, access: Access, shown: Texts, default: str) -> gr.Blocks:
    """One language's page. Nothing is sent to Gradio's makers."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    with gr.Blocks(title=shown["title"], analytics_enabled=False) as page:
        others = {texts(code)["name"]: "./" if code == default else f"/{code}" for code in languages()}
        gr.HTML(render.header(shown, others), js_on_load="", elem_classes="medtune")
        with gr.Tabs():
            with gr.Tab(shown["chat"]):
                Chat(service, access, shown).build(page)
            if len(service.served) > 1:
                with gr.Tab(shown["compare"]):
                    Compare(service, access, shown).build()
            with gr.Tab(shown["report"]):
                _report(service, shown)
    page.queue(default_concurrency_limit=None)
    assert isinstance(page, gr.Blocks)
    return page


def _report(service: Service, shown: Texts) -> None:
    runs = list(service.served)

    def read(model: str) -> str:
        path = service.run(model).report
        return render.report(path.read_text(encoding="utf-8") if path and path.exists() else "", shown)

    choice = gr.Dropdown(runs, value=runs[0], label=shown["run"], visible=len(runs) > 1)
    view = gr.HTML(read(runs[0]), js_on_load="", elem_classes="medtune")
    choice.change(read, [choice], [view], api_visibility="private")


def _login(access: Access) -> Callable[[str, str], bool] | None:
    """With keys, a key that may chat is the password; the user name does not matter."""
    keys = access.keys
    if keys is None:
        return None

    def login(_: str, password: str) -> bool:
        key = keys.find(password)
        return key is not None and "chat" in key.scopes

    return login
