"""A headless Chromium for the report's page; Debian's, or any that is called so."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
MISSING = "needs a browser: apt-get install chromium chromium-driver (or Chrome with its chromedriver)"
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


def chromium(profile: Path, capabilities: Mapping[str, Any] | None = None) -> webdriver.Chrome:
    """Raises RuntimeError with what to install."""
    if not (BROWSER and DRIVER):
        raise RuntimeError(MISSING)
    options = Options()
    options.binary_location = BROWSER
    for flag in (*_FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    for name, value in (capabilities or {}).items():
        options.set_capability(name, value)
    return webdriver.Chrome(options=options, service=Service(DRIVER))


def look(driver: webdriver.Chrome, *, width: int, height: int = 1000, dark: bool = False) -> None:
    """As on a screen of that size, in that theme, with nothing that moves."""
    scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    scheme.append({"name": "prefers-reduced-motion", "value": "reduce"})
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
