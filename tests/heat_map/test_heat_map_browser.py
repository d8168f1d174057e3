"""The token heat map in a real browser: colours, choice of quantity and response, pointer, keyboard, and no errors.

Needs Chromium, found on the PATH or named by $CHROMIUM. Where there is none the tests are skipped, unless $CI is true:
then they fail.
"""

import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from bayesian_transformer.heat_map import Response, write_report

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
CHROMIUM = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
MISSING = (
    "no Chromium found, so the page was not looked at; install it (Debian: apt-get install --no-install-recommends "
    "chromium) or set CHROMIUM to its path"
)
pytestmark = pytest.mark.skipif(CHROMIUM is None and os.environ.get("CI") != "true", reason=MISSING)

EVIL = "</script><script>document.title = 'owned'</script><img src=x onerror=\"document.title = 'owned'\">"
TOKENS = ["a", " \ufffd", "\ufffd", "\n", "\t", EVIL, "مرحبا", "\r", " end"]
TEXT = "a 😀\n\t" + EVIL + "مرحبا\r end"
EPISTEMIC = [0.005, 0.015, 0.025, 0.035, 0.045, 0.055, 0.065, 0.085, 0.1]  # in the middle of a colour step


class Dom(HTMLParser):
    """The parts of a dumped page that tests look at."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.title = ""
        self.sections: list[bool] = []  # whether shown
        self.levels: list[str] = []  # colour steps of the tokens, a string for each response
        self.texts: list[str] = []
        self.current: list[str] = []  # text of the token that is described
        self.said: list[str] = []  # its description
        self.now: dict[str, str] = {}  # its values
        self.scales: list[str] = []  # shown
        self._path: list[tuple[str, dict[str, str | None]]] = []
        self._row = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        a = dict(attrs)
        if tag in ("meta", "input"):
            return
        inside = self._path[-1][1].get("class") or "" if self._path else ""
        if tag == "section":
            self.sections.append("hidden" not in a)
        if tag == "div" and "tokens" in (a.get("class") or ""):
            self.levels.append("")
            self.texts.append("")
        if tag == "span" and "tokens" in inside:
            self.levels[-1] += a["data-level"] or ""
            if "aria-current" in a:
                self.current.append("")
        if tag == "tr":
            self._row = a.get("data-field") or ""
        if tag == "p" and a.get("class") == "scale" and "hidden" not in a:
            self.scales.append("")
        if tag == "p" and a.get("class") == "token":
            self.said.append("")
        self._path.append((tag, a))

    def handle_endtag(self, tag: str) -> None:
        while self._path and self._path.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        if not self._path:
            return
        if self._path[-1][0] == "title":
            self.title += data
        for tag, a in self._path:
            kind = a.get("class") or ""
            if "tokens" in kind.split():
                self.texts[-1] += data
            if "aria-current" in a:
                self.current[-1] += data
            if tag == "td" and kind == "now":
                self.now[self._row] = data
            if kind == "scale" and "hidden" not in a:
                self.scales[-1] += data
            if kind == "token":
                self.said[-1] += data


def chromium(page: Path, fragment: str, *options: str) -> subprocess.CompletedProcess[str]:
    if CHROMIUM is None:
        pytest.fail(MISSING)
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr",
        f"--user-data-dir={page.parent / 'profile'}", "--virtual-time-budget=3000", *options,
        f"{page.as_uri()}#{fragment}",
    ]  # fmt: skip
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, encoding="utf-8")
    assert result.returncode == 0, result.stderr
    complaints = [line for line in result.stderr.splitlines() if "CONSOLE" in line or "Page load failed" in line]
    assert complaints == []
    return result


def dump(page: Path, fragment: str = "") -> Dom:
    return Dom(chromium(page, fragment, "--dump-dom").stdout)


def with_script(page: Path, code: str) -> Path:
    """A copy of the page that runs `code` after its own script; its policy would not let it."""
    html = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text(encoding="utf-8"))
    copy = page.with_name("scripted.html")
    copy.write_text(html.replace("</body>", f"<script>{code}</script></body>"), encoding="utf-8")
    return copy


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    values = {"epistemic": EPISTEMIC, "total": EPISTEMIC[::-1]}
    responses = [
        Response("first <b>", list(range(len(TOKENS))), TOKENS, values, TEXT, prompt=EVIL, details={"model": EVIL}),
        Response("second", [7], ["only"], {"epistemic": [0.055], "logprob": [-1.0]}),
    ]
    path = tmp_path_factory.mktemp("browser") / "page.html"
    write_report(path, responses, title="Heat map")
    return path


def test_texts_are_shown_as_they_are_and_run_nothing(page: Path) -> None:
    dom = dump(page)
    assert dom.title == "Heat map"
    assert dom.texts == [TEXT.replace("\r", "\\x0d"), "only"]
    assert dom.sections == [True, True]
    assert dom.levels == ["012345689", "5"]
    assert len(dom.scales) == 1
    assert dom.html.count('class="hint" hidden') == 0
    assert re.search(r"Epistemic uncertainty in nats:\s*0\s*0.1000", dom.scales[0])
    assert "<img" not in dom.html.replace("&lt;img", "").split('id="data"')[0]


def test_the_policy_stops_scripts_of_others(page: Path) -> None:
    copy = page.with_name("injected.html")
    copy.write_text(page.read_text(encoding="utf-8").replace("</body>", "<script>document.title = 'owned'</script>"))
    with pytest.raises(AssertionError, match="inline script violates"):
        dump(copy)


def test_the_address_chooses_quantity_response_and_token(page: Path) -> None:
    dom = dump(page, "field=total&response=1&token=1.8")
    assert dom.sections == [True, False]
    assert dom.levels[0] == "986543210"
    assert dom.scales[0].startswith("\nTotal uncertainty")
    assert dom.current == ["\\x0d"]
    assert dom.said[0] == '"\\r" id 7, token 8 of 9'
    assert dom.now == {"epistemic": "0.0850", "total": "0.0150", "logprob": "–"}
    nonsense = dump(page, "field=nothing&response=9&token=5.x")
    assert nonsense.sections == [True, True]
    assert nonsense.current == []


def test_quantities_that_a_response_lacks_are_missing(page: Path) -> None:
    dom = dump(page, "field=logprob")
    assert dom.levels == ["-" * len(TOKENS), "9"]


def test_the_pointer_shows_a_token(page: Path) -> None:
    code = """const span = document.querySelectorAll(".tokens span")[2];
    span.dispatchEvent(new PointerEvent("pointerover", { bubbles: true }));"""
    dom = dump(with_script(page, code))
    assert dom.current == ["😀"]
    assert dom.said[0] == '"�" id 2, token 3 of 9, bytes of a character that several tokens spell'
    assert dom.now["epistemic"] == "0.0250"


def test_the_keyboard_moves_between_tokens(page: Path) -> None:
    code = """document.querySelector(".tokens [tabindex='0']").focus();
    for (const key of ["ArrowRight", "ArrowRight", "End", "ArrowRight", "ArrowLeft"]) {
      document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
    }
    // The browser tells of a new focus when its window has it, which may be later.
    setTimeout(() => {
      document.title = location.hash + " " + document.querySelectorAll("[tabindex]").length;
    }, 1000);"""
    dom = dump(with_script(page, code))
    assert dom.current == ["\\x0d"]
    assert dom.title == "#field=epistemic&response=all&token=1.8 2"  # one tab stop for each response


def test_the_controls_work_and_change_the_address(page: Path) -> None:
    code = """document.querySelector("input[value=total]").click();
    const choice = document.querySelector("select");
    choice.value = "1";
    choice.dispatchEvent(new Event("change", { bubbles: true }));
    document.title = location.hash + (choice.parentElement.hidden ? " hidden" : "");"""
    dom = dump(with_script(page, code))
    assert dom.title == "#field=total&response=1"
    assert dom.levels[0] == "986543210"
    assert dom.sections == [True, False]


def test_thousands_of_tokens(tmp_path: Path) -> None:
    count = 8000
    tokens = [f" w{i}" for i in range(count)]
    values = {"epistemic": [i / count for i in range(count)], "total": [1 - i / count for i in range(count)]}
    write_report(tmp_path / "long.html", [Response("long", list(range(count)), tokens, values)])
    dom = dump(tmp_path / "long.html", f"field=total&token=1.{count}")
    assert dom.texts == ["".join(tokens)]
    assert dom.said[0].endswith(f"token {count} of {count}")
    assert (dom.levels[0][0], dom.levels[0][-1]) == ("9", "0")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [380, 1240])
def test_colours_differ_and_nothing_overflows(page: Path, scheme: str, width: int) -> None:
    code = """const style = (level) => getComputedStyle(document.querySelector(`.steps [data-level="${level}"]`));
    const root = document.documentElement;
    const colours = new Set([..."0123456789"].map((level) => style(level).backgroundColor));
    document.title = [colours.size, root.scrollWidth - root.clientWidth, getComputedStyle(root).colorScheme,
      getComputedStyle(document.body).color].join(";");"""
    setting = f"--blink-settings=preferredColorScheme={0 if scheme == 'dark' else 1}"
    options = ("--dump-dom", setting, f"--window-size={width},800")
    title = Dom(chromium(with_script(page, code), "", *options).stdout).title
    steps, overflow, _, ink = title.split(";")
    assert (steps, overflow) == ("10", "0")
    assert (ink == "rgb(240, 242, 245)") == (scheme == "dark")


def test_the_list_of_spans_follows_the_chosen_quantity(tmp_path: Path) -> None:
    """Sorted anew, its tokens lit where it is pointed at, and a click leads to the first of them."""
    tokens = ["One", ".", "\n\n", "Two", "."]
    values = {"epistemic": [0.1, 0.1, 0.0, 0.2, 0.2], "total": [0.9, 0.9, 0.0, 0.2, 0.4]}
    path = tmp_path / "spans.html"
    write_report(path, [Response("r", list(range(5)), tokens, values).with_spans(["steps"])])
    dump(path)  # under its policy, without a complaint
    code = """const list = document.querySelector(".spans tbody");
    const names = () => [...list.rows].map((row) => row.innerText).join("/");
    const before = names();
    document.querySelector("input[value=total]").click();
    const button = document.querySelector(".spans button");
    button.dispatchEvent(new PointerEvent("pointerover", { bubbles: true }));
    const lit = [...document.querySelectorAll(".lit")].map((span) => span.textContent).join("");
    button.click();
    const by = document.querySelector(".spans .by").textContent;
    document.title = [before, names(), by, lit, location.hash].join(";");"""
    title = dump(with_script(path, code)).title
    assert title.replace("\t", " ").split(";") == [
        "step 2 Two. 2 0.2000 0.2000/step 1 One. 2 0.1000 0.1000",
        "step 1 One. 2 0.9000 0.9000/step 2 Two. 2 0.3000 0.4000",
        "TU",
        "One.",
        "#field=total&response=all&token=1.1",
    ]
