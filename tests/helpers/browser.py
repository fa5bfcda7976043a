"""A real browser, without a screen: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import importlib.util
import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.image import imread

if TYPE_CHECKING:
    from playwright.sync_api import Page

NAMES = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = (
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--use-gl=angle",
    "--use-angle=swiftshader",  # WebGL without a graphics card
    "--enable-unsafe-swiftshader",
)
PATIENCE = 300_000
"""Milliseconds that a page may take; drawing without a graphics card is slow."""


def find_browser() -> str | None:
    """The path of a browser, if one is installed."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


def why_no_browser() -> str | None:
    """What is missing for tests with a browser; None if nothing is."""
    if find_browser() is None:
        return f"no browser: none of {', '.join(NAMES)} is installed"
    if importlib.util.find_spec("playwright") is None:
        return "playwright is not installed"
    return None


@contextmanager
def opened_browser() -> Iterator[Page]:
    """A page of a browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=list(OPTIONS))
        page = browser.new_page(viewport={"width": 1000, "height": 700})
        page.set_default_timeout(PATIENCE)
        yield page
        browser.close()


@contextmanager
def console_errors(page: Page) -> Iterator[list[str]]:
    """What the console says of errors in the meantime, and exceptions that nobody caught."""
    errors: list[str] = []

    def note_message(message: Any) -> None:
        if message.type == "error":
            errors.append(message.text)

    def note_exception(error: Any) -> None:
        errors.append(str(error))

    page.on("console", note_message)
    page.on("pageerror", note_exception)
    yield errors
    page.remove_listener("console", note_message)
    page.remove_listener("pageerror", note_exception)


def pixels(page: Page) -> np.ndarray:
    """What the page shows, (h, w, 3) uint8."""
    image: np.ndarray = imread(io.BytesIO(page.screenshot()), format="png")
    return np.round(image[..., :3] * 255).astype(np.uint8)
