"""Takes the README's two pictures from a running console, with whatever data it has.

`.venv/bin/python -m tests.browser.pictures http://127.0.0.1:8001 NAME PASSWORD [MODEL]`
"""

import shutil
import sys
from pathlib import Path
from typing import Final

from playwright.sync_api import sync_playwright

FOLDER: Final = Path(__file__).resolve().parents[2] / "docs" / "img"
SIZE: Final = {"width": 1280, "height": 860}


def take(console: str, name: str, password: str, model: str) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport=SIZE, device_scale_factor=1.5)  # type: ignore[arg-type]
        page.goto(f"{console}/login/")
        page.fill("#id_username", name)
        page.fill("#id_password", password)
        page.click("button.primary")
        page.wait_for_url("**/overview/**")
        for address, picture in (("/overview/", "dashboard"), (f"/models/{model}/", "leaderboard")):
            page.goto(f"{console}{address}")
            page.wait_for_selector("[data-live][data-state=live]")
            page.wait_for_selector("[data-chart] svg")
            page.wait_for_timeout(1_000)
            page.screenshot(path=str(FOLDER / f"{picture}.png"))
        browser.close()


if __name__ == "__main__":
    take(*sys.argv[1:4], model=sys.argv[4] if len(sys.argv) > 4 else "smollm2-135m-instruct")
