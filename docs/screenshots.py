"""Make the README's pictures of an atlas: ``python docs/screenshots.py SITE``, from the site of ``make demo-atlas``.

Needs playwright (of the group ``dev``) and a Chromium.
"""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from encoscope import atlas

FOLDER = Path(__file__).parent / "images"
WIDTH, HEIGHT = 1440, 1000
FEATURE, CLASS, IMAGE = "layer4:133", "Leopards", "dolphin"


def main(site: Path) -> None:
    """Four pages as a reader meets them."""
    there = atlas.open(site)
    image = next(name for name in there.images if there.image(name).name.startswith(IMAGE))
    pages = {
        "features": "#/features?sort=heldout_auc&layer=layer4&visualized=1",
        "feature": f"#/feature/{FEATURE}",
        "class": f"#/class/{CLASS}",
        "image": f"#/image/{image}",
    }
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        for name, route in pages.items():
            page.goto(f"{site.resolve().as_uri()}/index.html{route}")
            page.wait_for_selector("main:not([aria-busy]) .page h1")
            page.wait_for_timeout(500)  # pictures come a little later than the page
            shot = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
            shot.save(FOLDER / f"atlas-{name}.jpg", quality=80, optimize=True)
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
