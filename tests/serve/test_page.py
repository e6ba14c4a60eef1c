"""The page in a real browser: an image goes in, its answer and its explanation come out, and nothing else is loaded."""

import base64
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.serve.conftest import Expected, Start

CHROMIUM = Path("/usr/bin/chromium")
playwright = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"needs {CHROMIUM}")

DROP = """([name, content]) => {
    const data = new DataTransfer();
    const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
    data.items.add(new File([bytes], name, { type: "image/png" }));
    document.getElementById("drop").dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true }));
}"""
EXPLAINED = '#explaining[aria-busy="false"] img:not([hidden])'


@pytest.fixture(scope="module")
def url(start: Start, tmp_path_factory: pytest.TempPathFactory, expected: Expected) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("model")
    (folder / "example-1.png").write_bytes(expected.files[3])
    (folder / "model.safetensors").write_bytes(b"weights")
    with start(folder=folder, examples=("example-1.png", "example-2.png")) as url:
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator["playwright.Browser"]:
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: "playwright.Browser", url: str) -> Iterator["playwright.Page"]:
    """The page, on a phone; at the end nothing was asked of others, and nothing is in the console."""
    page = browser.new_page(viewport={"width": 390, "height": 844})
    asked: list[str] = []
    said: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.set_default_timeout(10_000)
    page.goto(url)
    page.wait_for_selector("#facts dt", state="attached")
    yield page
    page.close()
    assert [address for address in asked if not address.startswith((f"{url}/", "blob:", "data:"))] == []
    refusals = "Failed to load resource: the server responded with a status of 422"
    assert [text for text in said if not text.startswith(refusals)] == []


def choose(page: "playwright.Page", content: bytes, *, name: str = "digit.png") -> None:
    page.set_input_files("#file", {"name": name, "mimeType": "image/png", "buffer": content})


def assert_answered(page: "playwright.Page", label: str) -> None:
    page.wait_for_selector(EXPLAINED)
    assert page.text_content("#label") == label
    assert page.get_attribute('#answers button[aria-pressed="true"]', "data-label") == label
    assert page.eval_on_selector("#explanation", "image => image.naturalWidth") >= 100
    assert page.is_hidden("#error")


def test_a_chosen_image_gets_its_answer_and_its_explanation(
    page: "playwright.Page", url: str, expected: Expected
) -> None:
    choose(page, expected.files[0])
    assert_answered(page, expected.labels[0])
    [found] = httpx.post(f"{url}/predict", files={"files": expected.files[0]}, trust_env=False).json()["predictions"]
    assert page.locator("#answers .label").all_text_contents() == [top["label"] for top in found["top"]]
    assert page.locator("#answers .percent").first.text_content() == f"{found['prob']:.1%}".replace("%", " %")
    share = page.eval_on_selector(
        "#answers .bar", "bar => parseFloat(getComputedStyle(bar, '::before').width) / bar.clientWidth"
    )
    assert share == pytest.approx(found["prob"], abs=0.02)
    assert page.text_content("#filename") == "digit.png"
    assert page.text_content("#explained") == f"What speaks for “{expected.labels[0]}”"
    assert page.evaluate("document.documentElement.scrollWidth") <= 390  # nothing sticks out of a phone


def test_a_dropped_image_takes_the_place_of_the_one_before(page: "playwright.Page", expected: Expected) -> None:
    other = next(index for index, label in enumerate(expected.labels) if label != expected.labels[0])
    choose(page, expected.files[0])
    page.evaluate(DROP, ["other.png", base64.b64encode(expected.files[other]).decode()])
    page.wait_for_selector(f'#label:text-is("{expected.labels[other]}")')
    assert_answered(page, expected.labels[other])
    assert page.text_content("#filename") == "other.png"


def test_an_answer_that_comes_late_does_not_stand_beside_another_image(
    page: "playwright.Page", expected: Expected
) -> None:
    other = next(index for index, label in enumerate(expected.labels) if label != expected.labels[0])
    late: list[playwright.Route] = []
    page.route("**/predict", lambda route: route.continue_() if late else late.append(route))
    choose(page, expected.files[0], name="late.png")
    choose(page, expected.files[other], name="other.png")
    assert_answered(page, expected.labels[other])
    late[0].fulfill(json={"predictions": [{"label": "late", "prob": 1, "top": [{"label": "late", "prob": 1}]}]})
    page.wait_for_timeout(300)
    assert (page.text_content("#label"), page.text_content("#filename")) == (expected.labels[other], "other.png")


def test_while_an_explanation_is_under_way_none_of_another_image_is_shown_and_other_things_can_be_asked(
    page: "playwright.Page", expected: Expected, tmp_path: Path
) -> None:
    choose(page, expected.files[0])
    assert_answered(page, expected.labels[0])
    held: list[playwright.Route] = []
    page.route("**/explain?*", lambda route: held.append(route))
    choose(page, expected.files[1], name="other.png")
    page.wait_for_selector('#filename:text-is("other.png")')
    page.wait_for_selector('#unexplained:text-is("Looking closer …")')
    assert page.is_hidden("#explanation")
    assert page.text_content("#explained") == ""
    page.unroute("**/explain?*")
    page.locator("#answers button").nth(1).click()
    page.wait_for_selector(EXPLAINED)
    assert page.get_attribute("main", "aria-busy") is None
    page.route("**/predict", lambda route: held.append(route))
    choose(page, expected.files[0])
    page.wait_for_selector('main[aria-busy="true"]')
    page.locator("#answers button").first.click()  # of the image that is still there
    page.wait_for_selector(EXPLAINED)
    assert page.get_attribute("main", "aria-busy") is None
    choose(page, expected.files[0])
    page.wait_for_selector('main[aria-busy="true"]')
    with (tmp_path / "large.png").open("wb") as large:
        large.truncate(20_000_001)
    page.set_input_files("#file", tmp_path / "large.png")
    page.wait_for_selector('#error:text("at most 20 MB")')
    assert page.get_attribute("main", "aria-busy") is None


def test_another_answer_can_be_explained_by_keyboard(page: "playwright.Page", expected: Expected) -> None:
    choose(page, expected.files[0])
    assert_answered(page, expected.labels[0])
    first = page.get_attribute("#explanation", "src")
    second = page.locator("#answers button").nth(1)
    second.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector(f'{EXPLAINED}:not([src="{first}"])')
    assert second.get_attribute("aria-pressed") == "true"
    assert page.text_content("#explained").endswith(f"“{second.get_attribute('data-label')}”")  # type: ignore[union-attr]


def test_an_example_is_tried_at_once(page: "playwright.Page", expected: Expected) -> None:
    page.get_by_role("button", name="Try example 1").click()
    assert_answered(page, expected.labels[3])
    assert page.locator("#examples button").count() == 1  # the second is not there


def test_what_is_wrong_is_said_in_words_and_the_next_image_is_answered(
    page: "playwright.Page", expected: Expected, tmp_path: Path
) -> None:
    choose(page, expected.files[0])
    assert_answered(page, expected.labels[0])
    choose(page, b"no image", name="letter.png")
    page.wait_for_selector("#error:not([hidden])")
    assert (page.text_content("#error") or "").startswith("letter.png: cannot be read as an image")
    assert page.get_attribute("#error", "role") == "alert"
    assert page.is_hidden("#result")  # the answer to another image does not stay beside it
    with (tmp_path / "large.png").open("wb") as large:
        large.truncate(20_000_001)
    page.set_input_files("#file", tmp_path / "large.png")
    page.wait_for_selector('#error:text("at most 20 MB")')
    choose(page, expected.files[1])
    assert_answered(page, expected.labels[1])


def test_a_file_name_is_text(page: "playwright.Page", expected: Expected) -> None:
    name = "<img src=x onerror=alert(1)>.png"
    choose(page, expected.files[0], name=name)
    assert_answered(page, expected.labels[0])
    assert page.text_content("#filename") == name
    assert page.locator("#filename img").count() == 0


def test_a_service_that_has_gone_is_said_to_have(
    browser: "playwright.Browser", start: Start, expected: Expected
) -> None:
    with start() as url:
        page = browser.new_page()
        page.goto(url)
        page.wait_for_selector("#facts dt", state="attached")
    choose(page, expected.files[0])
    page.wait_for_selector("#error:not([hidden])")
    assert "The service does not answer" in (page.text_content("#error") or "")
    page.close()
