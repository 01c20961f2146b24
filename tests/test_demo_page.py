"""The demo's page as it is served: who may ask it, what it leaves behind, and all of it in a real browser."""

import importlib.util
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import pytest
import runs
from browser import chromium
from demo_models import SIDE, painter, scene
from PIL import Image

from pixmed_jax.demo import serve
from pixmed_jax.demo.scene import pack, unpack
from pixmed_jax.errors import PixmedError

if importlib.util.find_spec("gradio") is None:
    pytest.skip('the page needs gradio: pip install -e ".[demo]"', allow_module_level=True)


@contextmanager
def served(folder: Path, port: int = 0, largest: str = "32mb", told: Path | None = None) -> Iterator[str]:
    """The address of a page, served by another process whose temporary files lie in `folder`.

    told: a file for what it prints beside that.
    """
    environment = {**os.environ, "TMPDIR": str(folder), "PYTHONPATH": str(runs.ROOT), "PYTHONWARNINGS": ""}
    command = [sys.executable, str(runs.ROOT / "tests" / "demo_models.py"), str(port), largest]
    with (
        told.open("w") if told else nullcontext() as errors,
        subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process,
    ):
        try:
            yield process.stdout.readline().strip()
        finally:
            process.send_signal(signal.SIGINT)


@pytest.fixture(scope="module")
def temporary(tmp_path_factory):
    return tmp_path_factory.mktemp("temporary")


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What the server of `address` prints."""
    return tmp_path_factory.mktemp("told") / "stderr"


@pytest.fixture(scope="module")
def address(temporary, told):
    with served(temporary, told=told) as address:
        yield address


@pytest.fixture
def printed(address, told):
    """What the server has printed since the test began."""
    before = len(told.read_text())
    return lambda: told.read_text()[before:]


def files(folder: Path) -> list[Path]:
    """Files in a folder with anything in them: gradio leaves empty ones until the process ends."""
    return [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size]


def get(url: str, data: bytes | None = None, **headers: str) -> tuple[int, dict[str, str], str]:
    try:
        request = urllib.request.Request(url, data, headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, dict(answer.headers), answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(error.headers), error.read().decode()


# ---------------------------------------------------------------- over HTTP
CANVAS = json.dumps({"drawn": pack(scene().tumor), "stroke": 3})
NAMES = ("own", "mask", "head", "images", "note", "label", "size", "right", "down", "number", "seed", "file")


def ask(address: str, event: str, *more, mask=CANVAS, right=0, number=1) -> dict:
    """What an event changes, by name; its session's uploaded anatomy goes along unseen."""
    values = [*more, "0", None, mask, "glioma", 100, right, 0, number, 0]
    url = f"{address}gradio_api/call/{event}"
    asked = json.dumps({"data": values}).encode()
    _, _, answer = get(url, asked, **{"Content-Type": "application/json"})
    _, _, stream = get(f"{url}/{json.loads(answer)['event_id']}")
    assert "event: complete" in stream, stream
    changes = json.loads(stream.rsplit("data: ", 1)[1])
    return dict(zip(NAMES, changes, strict=True))


def upload(address: str, name: str, data: bytes) -> tuple[int, str]:
    """Status, and the answer of an upload as the page does it."""
    name = name.replace('"', "%22")
    head = f'--x\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'.encode()
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    status, _, answer = get(f"{address}gradio_api/upload", head + data + b"\r\n--x--\r\n", **kind)
    return status, answer


def ask_with_file(address: str, name: str, data: bytes) -> dict:
    path = json.loads(upload(address, name, data)[1])[0]
    return ask(address, "upload", {"path": path, "meta": {"_type": "gradio.FileData"}})


def png(values: np.ndarray) -> bytes:
    data = io.BytesIO()
    Image.fromarray(values.astype(np.uint8)).save(data, "PNG")
    return data.getvalue()


def test_only_this_machine_is_answered(address):
    port = int(address.rstrip("/").rsplit(":", 1)[1])
    assert address.startswith("http://127.0.0.1:")
    status, headers, page = get(address)
    assert status == 200 and "draw a tumour" in page
    policy = headers["content-security-policy"]
    assert "default-src 'self'" in policy and "http" not in policy
    # A name of somebody else's that was made to mean 127.0.0.1.
    assert get(address, Host="pixmed.example")[0] == 400
    assert get(f"http://localhost:{port}/")[0] == 200
    outward = [a[4][0] for a in socket.getaddrinfo(socket.gethostname(), port, socket.AF_INET)]
    for host in {*outward} - {"127.0.0.1", "127.0.1.1"}:
        with pytest.raises(OSError):
            socket.create_connection((host, port), timeout=2).close()


def test_events_change_what_they_should(address):
    changes = ask(address, "draw", right=20)
    assert json.loads(changes["mask"])["stroke"] == 3
    np.testing.assert_array_equal(unpack(json.loads(changes["mask"])["shown"], SIDE), scene().tumor)
    assert changes["note"] == "" and 'class="tiles n1"' in changes["images"]
    assert 'class="tiles n4"' in ask(address, "number", number=4)["images"]


@pytest.mark.parametrize("mask", ["", "{}", '{"drawn": "<script>", "stroke": 1}'])
def test_a_fault_is_a_line_on_the_page(address, mask):
    note = ask(address, "draw", mask=mask)["note"]
    assert re.fullmatch(r'<p class="fault" role="alert">mask: [^<]+reload the page</p>\n?', note)


def test_a_file_s_name_is_not_html(address):
    note = ask_with_file(address, "<img src=x onerror=alert(1)>.png", b"no picture")["note"]
    assert "not a whole PNG" in note and "<img" not in note


def test_uploads_are_read_once_and_not_kept(address, temporary):
    tumor = scene("meningioma", (20, 14)).tumor
    changes = ask_with_file(address, "m.png", png(255 * tumor))
    assert changes["note"] == ""
    np.testing.assert_array_equal(unpack(json.loads(changes["mask"])["shown"], SIDE), tumor)
    assert files(temporary) == []


def test_files_of_others_are_not_read(address, tmp_path):
    """A path that no upload has made is refused, before anything is opened."""
    (tmp_path / "m.png").write_bytes(png(255 * scene().tumor))
    with pytest.raises(AssertionError, match="event: error"):
        ask(address, "upload", {"path": str(tmp_path / "m.png"), "meta": {"_type": "gradio.FileData"}})
    assert (tmp_path / "m.png").exists()


def test_an_upload_that_is_too_large_is_refused_and_all_folders_go(tmp_path):
    with served(tmp_path, largest="10kb") as address:
        assert upload(address, "small.png", bytes(5_000))[0] == 200
        assert upload(address, "large.png", bytes(2_000_000))[0] == 413
        assert sum(path.stat().st_size for path in files(tmp_path)) < 20_000
    assert list(tmp_path.glob("pixmed-demo-*")) == []


def test_several_users_at_once(address):
    """Each gets what it asked for, whatever the others ask."""

    def user(i: int) -> bool:
        tumor = np.zeros((SIDE, SIDE), bool)
        tumor[8 + i : 12 + i, 12:18] = True
        asked = json.dumps({"drawn": pack(tumor), "stroke": i})
        answers = [json.loads(ask(address, "draw", mask=asked)["mask"]) for _ in range(3)]
        return all(a["stroke"] == i and np.array_equal(unpack(a["shown"], SIDE), tumor) for a in answers)

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(user, range(6)))


@pytest.mark.parametrize("port", [-1, 70_000])
def test_a_port_that_there_is_not(port):
    with pytest.raises(PixmedError, match="give 1 to 65535"), serve.served(painter(), port):
        pass


# ---------------------------------------------------------------- in a browser
@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    downloads = tmp_path_factory.mktemp("downloads")
    with chromium(downloads, log=("performance", "browser")) as driver:
        driver.downloads = downloads
        yield driver


@pytest.fixture
def open_page(browser, address):
    def open_page(width: int = 1280, height: int = 860):
        window = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", window)
        browser.get(address)
        wait(lambda: find(browser, "canvas.board") and image(browser))
        return browser

    return open_page


def wait(condition, seconds: float = 20):
    """What `condition` gives once it is true."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "the page did not get there"
        time.sleep(0.03)
    return value


def find(browser, selector: str) -> list:
    return browser.find_elements("css selector", selector)


def one(browser, selector: str):
    (element,) = find(browser, selector)
    return element


def image(browser) -> str:
    return browser.execute_script("return document.querySelector('.tiles img')?.src || ''")


def tumor(browser) -> np.ndarray:
    """What is shown of the mask, read from the outline's twin on the canvas: its strong colour."""
    return np.array(
        browser.execute_script(
            """const board = document.querySelector("canvas.board");
               const data = board.getContext("2d").getImageData(0, 0, board.width, board.height).data;
               const step = board.width / arguments[0], found = [];
               for (let y = 0; y < arguments[0]; y++) for (let x = 0; x < arguments[0]; x++) {
                 const i = 4 * (Math.floor((y + 0.5) * step) * board.width + Math.floor((x + 0.5) * step));
                 found.push(Math.max(...data.slice(i, i + 3)) - Math.min(...data.slice(i, i + 3)) > 60);
               }
               return found;""",
            SIDE,
        )
    ).reshape(SIDE, SIDE)


def drag(browser, start: tuple[float, float], end: tuple[float, float]) -> None:
    """A stroke between two places of the canvas, in parts of its side from the left and the top."""
    from selenium.webdriver.common.action_chains import ActionChains

    board = one(browser, "canvas.board")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", board)
    side = board.size["width"]
    actions = ActionChains(browser, duration=50)
    actions.move_to_element_with_offset(board, (start[0] - 0.5) * side, (start[1] - 0.5) * side)
    actions.click_and_hold()
    actions.move_by_offset((end[0] - start[0]) * side, (end[1] - start[1]) * side).release().perform()


def test_draw_and_see_it(open_page):
    browser = open_page()
    np.testing.assert_array_equal(tumor(browser), scene().tumor)
    assert one(browser, "#header strong").is_displayed()
    assert "Not for diagnosis" in one(browser, "#header strong").text
    one(browser, ".tools .clear").click()
    wait(lambda: "no tumour" in one(browser, ".legend").text)
    before = image(browser)
    drag(browser, (0.4, 0.6), (0.6, 0.6))
    wait(lambda: image(browser) != before and "Dice" in one(browser, ".legend").text)
    drawn = tumor(browser)
    assert drawn[19, 13:19].all() and not drawn[:16].any() and not drawn[23:].any()
    # The image is that of the mask: an Echo shows class 2 of 4 as 0.4.
    wait(lambda: browser.execute_script("return document.querySelector('path.mask').getAttribute('d')"))
    data = browser.execute_script(
        "return fetch(arguments[0]).then(r => r.text()).then(() => 1)", image(browser)
    )
    assert data == 1
    one(browser, ".tools .undo").click()
    wait(lambda: "no tumour" in one(browser, ".legend").text)
    assert not tumor(browser).any()


def test_a_slider_moves_the_tumour(open_page):
    browser = open_page()
    before, first = tumor(browser), image(browser)
    browser.execute_script(
        """const slider = document.querySelector("#right input[type=range]");
           slider.value = 25; slider.dispatchEvent(new Event("input", {bubbles: true}));"""
    )
    wait(lambda: image(browser) != first)
    wait(lambda: np.array_equal(tumor(browser), np.roll(before, 8, axis=1)))
    find(browser, "#label label")[0].click()
    wait(lambda: "meningioma" in one(browser, ".tiles img").get_attribute("alt"))
    find(browser, "#head label")[1].click()
    wait(lambda: np.array_equal(tumor(browser), scene("meningioma", (18, 12)).tumor))
    assert one(browser, "#right input[type=number]").get_attribute("value") == "0"
    kept = browser.execute_script("return JSON.stringify(localStorage) + JSON.stringify(sessionStorage)")
    assert "stroke" not in kept and "data:image" not in kept  # no mask and no image stays in the browser


@pytest.mark.parametrize(("typed", "taken"), [("-5", "0"), ("99999999999", "4294967295")])
def test_a_mistyped_seed_is_put_right_in_a_line(open_page, printed, typed, taken):
    browser = open_page()
    seed, keys = one(browser, "#seed input"), pytest.importorskip("selenium.webdriver").Keys
    seed.send_keys(keys.CONTROL, "a")
    seed.send_keys(typed, keys.TAB)
    wait(lambda: seed.get_attribute("value") == taken)
    assert wait(lambda: find(browser, "#note .fault"))[0].text.endswith(f"4294967295; {taken} is taken")
    find(browser, "#number label")[1].click()  # all else goes on
    wait(lambda: len(find(browser, ".tiles img")) == 4 and not find(browser, "#note .fault"))
    assert not find(browser, ".toast-body") and "Traceback" not in printed()


def test_a_number_half_typed_beside_a_slider_is_no_fault(open_page, printed):
    browser = open_page()
    before = image(browser)
    size, keys = one(browser, "#size input[type=number]"), pytest.importorskip("selenium.webdriver").Keys
    size.send_keys(keys.CONTROL, "a")
    size.send_keys("9")  # of 90, and below the least
    wait(lambda: image(browser) != before)
    assert tumor(browser).sum() < scene().tumor.sum() / 4
    assert not find(browser, ".toast-body") and "Traceback" not in printed()


def test_gradio_s_own_messages_can_be_read(open_page):
    """On dark ground, also in a browser that asks for light pages."""
    browser = open_page()
    light = [{"name": "prefers-color-scheme", "value": "light"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": light})
    try:
        browser.refresh()
        wait(lambda: find(browser, "canvas.board"))
        ground = browser.execute_script(
            """const box = document.body.appendChild(document.createElement("div"));
               box.style.background = "var(--background-fill-secondary)";
               return getComputedStyle(document.querySelector(".gradio-container")
                 .appendChild(box)).backgroundColor;"""
        )
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert max(map(int, re.findall(r"\d+", ground))) < 64, ground


def test_what_is_saved_is_what_is_seen(open_page):
    browser = open_page()
    find(browser, "#number label")[1].click()
    wait(lambda: len(find(browser, ".tiles img")) == 4)
    for form in ("png", "nifti"):
        one(browser, f"#{form}").click()
        file = browser.downloads / f"synthetic_glioma_seed0_{form}.zip"
        wait(file.exists)
        with zipfile.ZipFile(wait(lambda file=file: file.stat().st_size and file)) as archive:
            names = archive.namelist()
            assert len(names) == 9
            if form == "png":
                mask = np.asarray(Image.open(io.BytesIO(archive.read(names[1]))))
                np.testing.assert_array_equal(mask > 0, tumor(browser))


def test_a_hostile_upload_is_one_line(open_page, tmp_path, temporary):
    browser = open_page()
    before = image(browser)
    file = tmp_path / "hostile.png"
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + b"\xff" * 1000)
    one(browser, "input[type=file]").send_keys(str(file))
    line = wait(lambda: find(browser, "#note .fault"))[0].text
    assert line.startswith("hostile.png: ") and "\n" not in line and "Traceback" not in browser.page_source
    assert image(browser) == before  # and everything goes on
    (tmp_path / "good.png").write_bytes(png(255 * scene("glioma", (18, 18)).tumor))
    one(browser, "input[type=file]").send_keys(str(tmp_path / "good.png"))
    wait(lambda: np.array_equal(tumor(browser), scene("glioma", (18, 18)).tumor))
    assert not find(browser, "#note .fault") and files(temporary) == []


def test_on_a_phone(open_page):
    browser = open_page(390, 844)
    assert browser.execute_script("return document.documentElement.scrollWidth") == 390
    boxes = [one(browser, selector).rect for selector in ("canvas.board", ".tiles")]
    for box in boxes:  # mask and image are seen together
        assert box["x"] >= 0 and box["x"] + box["width"] <= 390 and box["y"] + box["height"] <= 844
    assert one(browser, "#header strong").is_displayed()
    for selector in ("#size", "#again", "#png"):
        box = one(browser, selector).rect
        assert box["width"] > 0 and box["x"] + box["width"] <= 390
    before = image(browser)
    drag(browser, (0.4, 0.6), (0.6, 0.6))
    wait(lambda: image(browser) != before)


def test_the_page_asks_nobody_else_and_complains_of_nothing(open_page, address):
    browser = open_page()
    browser.get_log("performance")
    browser.get(address)
    wait(lambda: image(browser))
    time.sleep(0.5)
    sent = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [m["params"]["request"]["url"] for m in sent if m["method"] == "Network.requestWillBeSent"]
    assert len(urls) > 5
    assert [url for url in urls if not url.startswith((address, "data:", "blob:"))] == []
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
