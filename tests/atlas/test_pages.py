"""The pages in a real browser, from a folder and from a server: what is shown, reached, searched, slid and typed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from encoscope import atlas
from encoscope.atlas import trees
from support import atlas_records as synthetic
from support.atlas_browsing import Visit, served

Open = Callable[..., Visit]

IMPORTS = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, sys.path)])
"""What a process of its own imports: this checkout's package, not the one that is installed."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic.small_site(tmp_path_factory.mktemp("atlas") / "a site", images=12)


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    from encoscope.atlas.serving import create_app

    with served(create_app(site)) as base:
        yield base


@pytest.fixture
def visit(browser: Any, site: Path) -> Iterator[Open]:
    """Opens windows; at the end nothing may have gone wrong in any of them."""
    opened: list[Visit] = []

    def start(base: str | None = None, **options: Any) -> Visit:
        opened.append(Visit(browser, base or site.as_uri(), **options))
        return opened[-1]

    yield start
    for one in opened:
        one.close()
    assert [problem for one in opened for problem in one.problems] == []


ROUTES = {
    "#/features": "Features",
    "#/feature/layer1:1": "layer1:1 brick",
    "#/images": "Images",
    f"#/image/{synthetic.image_id(2)}": "sunflower",
    "#/classes": "Classes",
    "#/class/Faces": "Faces class:1",
    "#/compare": "zoo:made-up beside timm:convnext_atto",
    "#/about": "About this atlas",
}


@pytest.mark.parametrize("how", ["file", "served"])
def test_every_page(visit: Open, request: pytest.FixtureRequest, how: str) -> None:
    window = visit(request.getfixturevalue("address") if how == "served" else None)
    titles: set[str] = set()
    for route, heading in ROUTES.items():
        page = window.open(route)
        assert window.heading() == heading
        assert window.count_loaded_images() > 0 or route == "#/about"
        assert page.evaluate("[...document.images].every((image) => image.hasAttribute('alt'))")
        titles.add(page.title())
        assert page.title().endswith("A made-up network · Encoscope atlas")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert len(titles) == len(ROUTES)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_narrow_windows_in_light_and_dark(visit: Open, scheme: str) -> None:
    window = visit(viewport={"width": 390, "height": 844}, color_scheme=scheme)
    for route in ROUTES:
        page = window.open(route)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), route
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(20, 20, 18)") == (scheme == "dark")


def test_no_number_without_its_unit_or_control(visit: Open) -> None:
    window = visit()
    page = window.open("#/feature/layer1:1")
    text = page.inner_text("main")
    for said in ("AUC", "control 0.52: permuted features", "95 % interval", "standard deviations above its mean"):
        assert said in text
    assert "control 0.08, median pair" in text and "logits per standard deviation; control 0.20" in text
    assert page.locator(".measure").count() == page.locator(".measure .unit").count() == 4


def test_search_filter_sort_and_coming_back(visit: Open) -> None:
    window = visit()
    page = window.open()
    assert page.inner_text(".count") == "12 features"
    page.keyboard.press("/")
    page.keyboard.type("brick")
    window.wait("document.querySelector('.count').textContent !== '12 features'")
    units = page.locator(".card .mono").all_inner_texts()
    found = atlas.open(Path(window.base.removeprefix("file://").replace("%20", " ")))
    descriptions = {unit: found.feature(unit).description for unit in found.features}
    expected = [
        unit
        for unit, description in descriptions.items()
        if description is not None
        and any("brick" in term.text for term in (*description.concepts, *description.phrases))
    ]
    assert units == expected and 0 < len(units) < 12
    assert page.evaluate("location.hash") == "#/features?q=brick"
    page.select_option("select[name=method]", "falcon")
    assert all(int(unit.split(":")[1]) % 3 for unit in page.locator(".card .mono").all_inner_texts())
    page.select_option("select[name=sort]", "heldout_auc")
    aucs = [float(text) for text in page.locator(".card-figure b").all_inner_texts()]
    assert aucs == sorted(aucs, reverse=True)
    hash_ = page.evaluate("location.hash")
    page.locator(".card").first.click()
    window.wait("location.hash.startsWith('#/feature/')")
    window.settled()
    page.go_back()
    window.wait("document.querySelector('.card')")
    assert page.evaluate("location.hash") == hash_ and page.input_value("#search") == "brick"
    page.fill("#search", "nothing at all")
    assert page.locator(".notice").is_visible() and page.locator(".card").count() == 0
    page.press("#search", "Escape")
    assert page.input_value("#search") == "" and page.locator(".card").count() > 0
    again = visit()  # the address alone brings another window to the same place
    assert again.open(hash_).locator(".card").count() == len(aucs)


@pytest.mark.parametrize("route", ["#/feature/layer1:1", "#/class/Faces"])
def test_the_transparency_slider(visit: Open, route: str) -> None:
    page = visit().open(route)
    opacity = "getComputedStyle(document.querySelector('.whole')).opacity"
    assert page.evaluate(opacity) == "1"
    page.focus("#transparency")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    assert page.inner_text(".visualization output") == "3 %" and float(page.evaluate(opacity)) == pytest.approx(0.97)
    page.keyboard.press("End")
    assert page.evaluate(opacity) == "0" and page.locator(".faded").is_visible()
    if "class" in route:  # one picture: no choice between several; what is to be known of it is said
        assert page.locator(".tabs").count() == 0 and "Few images stood behind it." in page.inner_text(".visualization")
        return
    page.get_by_role("button", name="fourier").click()
    assert page.locator(".faded").count() == 0 and not page.locator("#transparency").is_visible()


def test_an_image_at_every_granularity(visit: Open, site: Path) -> None:
    window = visit()
    image = atlas.open(site).image(synthetic.image_id(2))
    page = window.open(f"#/image/{image.id}?s=layer2&k=4")
    assert page.locator(".regions > li").count() == 4 and page.input_value("#granularity") == "4"
    part = image.segmentations[0]
    labels = part.labels.to_array()
    for regions in (2, 7, 20):
        page.fill("#granularity", str(regions))
        shares = page.locator(".region-share").all_inner_texts()
        nodes = trees.cut_tree(part.merges, 20, regions)[labels]
        areas = sorted([(nodes == node).mean() for node in set(nodes.ravel().tolist())], reverse=True)
        assert len(shares) == regions
        assert [float(text.split()[0]) for text in shares] == pytest.approx([100 * area for area in areas], abs=0.51)
    assert page.evaluate("location.hash").endswith("k=20")
    # whatever the granularity, the browser's decoding and cutting are ours
    sides = page.evaluate(
        """(place) => Atlas.record("images", place).then(({segmentations: [part]}) => ({
            cells: [...Atlas.segmentation.decodeLabels(part.labels)],
            cuts: Array.from({length: 20}, (_, k) => Atlas.segmentation.cutTree(part.merges, k + 1)),
        }))""",
        2,
    )
    assert sides["cells"] == labels.ravel().tolist()
    assert sides["cuts"] == [trees.cut_tree(part.merges, 20, k).tolist() for k in range(1, 21)]


def test_the_same_cluster_in_other_images(visit: Open, site: Path) -> None:
    window = visit()
    image = atlas.open(site).image(synthetic.image_id(2))
    page = window.open(f"#/image/{image.id}?s=layer2")
    assert page.locator(".elsewhere a").count() == 0
    page.locator(".region").first.focus()  # segmented alone: the cluster of all images that covers most of the region
    page.wait_for_selector(".elsewhere a")
    alone, joint = (part.labels.to_array() for part in image.segmentations)
    nodes = trees.cut_tree(image.segmentations[0].merges, 20, 5)[alone]
    inside = np.bincount(joint[nodes == np.bincount(nodes.ravel()).argmax()])
    said = page.inner_text(".explorer .section .lead")
    assert "Of the 20 clusters of all images" in said
    assert float(said.split("(")[1].split()[0]) == pytest.approx(100 * inside.max() / inside.sum(), abs=0.51)
    assert page.evaluate("new URLSearchParams(document.querySelector('.elsewhere a').hash.split('?')[1]).get('s')") == (
        "layer2-joint"
    )
    page.select_option("#layer", "layer2-joint")
    page.wait_for_selector(".elsewhere:not(:has(a))", state="attached")
    page.hover(".image-stage >> nth=0")
    page.wait_for_selector(".elsewhere a")
    shares = [text.split(": ")[1] for text in page.locator(".other-name").all_inner_texts()]
    assert shares and [float(one.split()[0]) for one in shares] == sorted(
        [float(one.split()[0]) for one in shares], reverse=True
    )
    assert page.locator(".regions > li.lit").count() == 1
    page.mouse.move(2, 2)
    page.wait_for_selector(".elsewhere:not(:has(a))", state="attached")
    page.locator(".region").first.focus()  # with keys alone, too
    page.keyboard.press("Enter")
    page.wait_for_selector(".elsewhere a")
    assert page.locator('.region[aria-pressed="true"]').count() == 1
    page.locator(".elsewhere a").first.click()
    window.wait("(old) => !location.hash.includes(old)", synthetic.image_id(2))
    window.settled()
    assert page.input_value("#layer") == "layer2-joint"


def test_keys_go_everywhere(visit: Open) -> None:
    window = visit()
    page = window.open()
    page.focus("#search")
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.getAttribute('href')") == "#/feature/layer1:0"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("End")
    assert page.evaluate("document.activeElement.getAttribute('href')") == "#/feature/layer1:11"
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    window.wait("location.hash === '#/feature/layer1:0'")
    window.settled()
    page.keyboard.press("j")
    window.wait("location.hash === '#/feature/layer1:1'")
    window.settled()
    page.keyboard.press("k")
    window.wait("location.hash === '#/feature/layer1:0'")
    window.settled()
    page.keyboard.press("t")
    page.keyboard.press("t")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.reload()
    window.settled()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.keyboard.press("Tab")  # the first stop leads past the header
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"


def test_class_and_comparison(visit: Open) -> None:
    window = visit()
    page = window.open("#/class/airplanes")
    text = page.inner_text("main")
    assert "taken for Faces" in text and "one of 101 classes at random" in text and "Weights: relevance (LRP)" in text
    assert page.locator(".circuit-layer").count() == 3
    # channels of layer2 are none of this atlas's features: their strongest images stand for them, and no link
    unknown = page.locator(".circuit-layer").nth(1).locator(".chip")
    assert unknown.locator("img").count() == 3 * 4 and page.locator(".circuit-layer").nth(1).locator("a").count() == 0
    page.locator(".circuit a.chip").first.click()
    window.wait("location.hash.startsWith('#/feature/')")
    page = window.open("#/compare/another")
    assert page.locator(".pair").count() == 6 and "12 images that both atlases hold" in page.inner_text(".lead")
    page.get_by_label("each the other's best match").check()
    assert page.inner_text(".count") == "3 pairs"


def test_about_names_models_digests_controls_and_papers(visit: Open) -> None:
    text = visit().open("#/about").inner_text("main")
    assert "ab" * 32 in text and "cd" * 32 in text  # of the model and of the images
    assert "zoo:clip-made-up" in text and "9f" * 32 in text  # of what the words took
    assert "Permuted features:" in text and "null" not in text and "undefined" not in text
    for said in ("12 of 12", "10 of 12", "arXiv:2411.19700", "arXiv:2307.10504", "arXiv:2503.22399", "broken.jpg"):
        assert said in text, said


def test_numbers_keep_two_digits(visit: Open) -> None:
    page = visit().open("#/about")
    shown = page.evaluate("[0.0099, 0.0354, 0.1, 0.456, 12.34, 1234.5, -0.4, 0, null].map(formatNumber)")
    assert shown == ["0.0099", "0.035", "0.10", "0.46", "12.3", "1235", "\u22120.40", "0", "–"]


def test_addresses_that_lead_nowhere_say_so(visit: Open) -> None:
    window = visit()
    for route, said in {
        "#/feature/layer9:1": "no such feature",
        "#/image/abc": "no such image",
        "#/class/unicorn": "no such class",
        "#/compare/nobody": "no such comparison",
        "#/nothing": "no such page",
        "#/feature/%E0%A4%A": "no such feature",
    }.items():
        assert said in window.open(route).inner_text("main"), route


def test_the_policy_stops_what_gets_into_a_served_page(browser: Any, address: str) -> None:
    window = Visit(browser, address)
    page = window.open("#/about")
    page.evaluate(
        """() => {
            document.body.append(Object.assign(document.createElement("script"), {textContent: "window.ran = true"}));
            document.body.append(Object.assign(new Image(), {src: "http://127.0.0.2:9/elsewhere.png"}));
            const dressed = '<b id="dressed" style="color: red" onclick="ran = true">x</b>';
            document.body.insertAdjacentHTML("beforeend", dressed);
            document.getElementById("dressed").click();
        }"""
    )
    window.wait("() => [...document.images].every((image) => image.complete)")
    assert page.evaluate("window.ran") is None
    assert page.evaluate("document.getElementById('dressed').style.color") == ""
    assert sum("Content Security Policy" in problem for problem in window.problems) >= 3
    window.close()


def test_a_partial_atlas_is_a_valid_one(visit: Open, tmp_path: Path) -> None:
    synthetic.writer(tmp_path / "empty").close()
    with synthetic.writer(tmp_path / "begun") as made:
        made.add(atlas.FeatureRecord("layer1:0", "layer1"))
        made.add(atlas.ImageRecord("ab" * 32, "a.jpg", thumbnail=made.save_image(synthetic.pixels(1))))
        made.add(atlas.ClassRecord("cat", 0))
        made.set_stage("images", 1, 2)
    window = visit((tmp_path / "empty").as_uri())
    assert window.open().inner_text(".count") == "0 features"
    window.open("#/about")
    window = visit((tmp_path / "begun").as_uri())
    assert "no description" in window.open().inner_text(".card")
    assert "This feature has no description yet" in window.open("#/feature/layer1:0").inner_text("main")
    assert "not been segmented" not in window.open("#/images").inner_text("main")
    assert "not been segmented" in window.open(f"#/image/{'ab' * 32}").inner_text("main")
    assert "cat" in window.open("#/class/cat").inner_text("main")
    assert "1 of 2" in window.open("#/about").inner_text("main")


def test_missing_files_are_said_on_the_page(browser: Any, site: Path, tmp_path: Path) -> None:
    shutil.copytree(site, tmp_path / "torn")
    (tmp_path / "torn" / "data" / "features-000000.js").unlink()
    window = Visit(browser, (tmp_path / "torn").as_uri())
    assert "features-000000.js is missing" in window.open("#/feature/layer1:1").inner_text("main")
    assert window.open("#/images").locator(".card").count() == 12
    (tmp_path / "torn" / "data" / "manifest.js").unlink()
    window.page.goto(f"{window.base}/index.html")
    window.page.wait_for_selector("text=There is no atlas here")
    window.close()


def test_words_are_never_markup(visit: Open, tmp_path: Path) -> None:
    evil = "<img src=x onerror=alert(1)>"
    with synthetic.writer(tmp_path, title=evil) as made:
        words = atlas.DescriptionRecord((atlas.Term(evil, 1.0),), evil, evil)
        made.add(atlas.FeatureRecord(f"layer1:{evil}", evil, words, heldout_auc=atlas.Measure(1.0, evil, 0.5, evil)))
    window = visit(tmp_path.as_uri())
    page = window.open()
    assert page.inner_text(".card-word") == evil
    page.locator(".card").click()
    window.wait("location.hash.startsWith('#/feature/')")
    window.settled()
    assert evil in page.inner_text("h1") and page.locator("img").count() == 0


def test_ten_thousand_features_stay_light(visit: Open, tmp_path: Path) -> None:
    # written by a process of its own, without the tests' checks of every type
    code = "import sys, pathlib; from support import atlas_records; atlas_records.large_site(pathlib.Path(sys.argv[1]))"
    environment = os.environ | {"PYTHONPATH": IMPORTS}
    subprocess.run([sys.executable, "-c", code, tmp_path], check=True, env=environment)
    window = visit(tmp_path.as_uri())
    page = window.open()
    assert page.inner_text(".count") == "10,000 features"
    nodes = "document.getElementsByTagName('*').length"
    assert page.evaluate(nodes) < 1500
    page.fill("#search", "quincunx")
    assert page.locator(".card .mono").all_inner_texts() == [synthetic.unit(9997)]
    page.fill("#search", "")
    page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
    page.wait_for_selector(f"text={synthetic.unit(9999)}")
    assert page.evaluate(nodes) < 1500
    page.evaluate("for (let place = 0; place < 40; place++) { scrollTo(0, place * 5000); }")
    assert page.evaluate(nodes) < 1500
    assert window.count_loaded_images() < 100
