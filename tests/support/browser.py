"""Headless Chromium, driven by selenium in threads, since selenium blocks."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.support.processes import program

__all__ = ["Browser"]

#: Seconds that a page may take to load and a script to run.
_PATIENCE = 30

_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
)


class Browser:
    """One browser window with a profile of its own, which ends with the test."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self._driver = driver

    @classmethod
    async def start(cls, test: TestCase, *, insecure: bool = False) -> Browser:
        """
        Start one.

        :param insecure: Whether it takes any certificate.
        """
        chromium, chromedriver = program("chromium"), program("chromedriver")
        profile = tempfile.mkdtemp(prefix="rtpush-chromium-")
        test.addCleanup(shutil.rmtree, profile, ignore_errors=True)
        options = webdriver.ChromeOptions()
        options.binary_location = chromium
        for flag in (*_FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.accept_insecure_certs = insecure
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        # A group of its own, so that nothing of it can be left.
        service = Service(chromedriver, popen_kw={"start_new_session": True})
        test.addCleanup(_end, service)
        driver = await deferToThread(webdriver.Chrome, options=options, service=service)
        test.addCleanup(deferToThread, driver.quit)
        driver.set_page_load_timeout(_PATIENCE)
        driver.set_script_timeout(_PATIENCE)
        return cls(driver)

    async def open(self, url: str) -> None:
        """Load a page."""
        await deferToThread(self._driver.get, url)

    async def run(self, script: str, *arguments: Any) -> Any:
        """Run JavaScript in the page; return what it returns."""
        return await deferToThread(self._driver.execute_script, script, *arguments)

    async def command(self, name: str, **parameters: Any) -> None:
        """Give a command of the DevTools protocol."""
        await deferToThread(self._driver.execute_cdp_cmd, name, parameters)

    async def log(self) -> list[Any]:
        """Return what the page has logged since this was asked last, and what went wrong in it."""
        return list(await deferToThread(self._driver.get_log, "browser"))


def _end(service: Service) -> None:
    process = getattr(service, "process", None)
    if process is not None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
