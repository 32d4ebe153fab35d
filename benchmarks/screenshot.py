"""`python -m benchmarks.screenshot REPORT PNG`: the top of a report as a picture, for the README."""

from __future__ import annotations

import sys
import tempfile
import time
from io import BytesIO
from pathlib import Path

from PIL import Image

from benchmarks.browser import chromium, look

WIDTH, HEIGHT = 1400, 1120
COLOURS = 128  # of a page of flat colours: enough, and a third of the bytes


def main(report: Path, picture: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as profile:
        driver = chromium(Path(profile))
        try:
            look(driver, width=WIDTH, height=HEIGHT)
            driver.get(report.resolve().as_uri())
            while driver.execute_script("return document.documentElement.dataset.ready") != "1":
                time.sleep(0.1)
            taken = Image.open(BytesIO(driver.get_screenshot_as_png())).convert("RGB")
        finally:
            driver.quit()
    picture.parent.mkdir(parents=True, exist_ok=True)
    taken.quantize(COLOURS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(
        picture, optimize=True
    )
    print(f"{picture}: {WIDTH} x {HEIGHT}, {picture.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
