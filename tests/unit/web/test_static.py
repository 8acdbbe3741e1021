"""The built-in page keeps what its content security policy and its readers rely on: nothing inline, nothing from elsewhere.

Modules are read as text here; that they run is the business of tests/browser.
"""

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

WEB = Path(__file__).resolve().parents[3] / "relay" / "web"
FILES = sorted(path for path in WEB.rglob("*") if path.is_file())
MODULES = sorted((WEB / "js").glob("*.js"))
MAX_LINES = 600
MAX_MODULE_LINES = 330
MAX_TOTAL_BYTES = 200_000

# Names of namespaces, an example in a placeholder, and patterns; none of them is ever loaded.
ALLOWED_URLS = {"http://www.w3.org/2000/svg", "https://…/#invite=…", "http://localhost"}
IMPORT = re.compile(r'^import (?:\{([^}]*)\}|\* as \w+|\w+) from "([^"]+)";', re.MULTILINE)
EXPORT = re.compile(r"^export (?:async )?(?:function\*?|class|const|let) (\w+)", re.MULTILINE)


class Tags(HTMLParser):
    """Collects elements with their attributes, and text inside scripts and styles."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.inline = ""
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._open and self._open[-1] == tag:
            self._open.pop()

    def handle_data(self, data: str) -> None:
        if self._open:
            self.inline += data


@pytest.fixture(scope="module")
def page() -> Tags:
    tags = Tags()
    tags.feed((WEB / "index.html").read_text(encoding="utf-8"))
    return tags


def test_page_has_no_inline_script_or_style(page: Tags) -> None:
    assert page.inline.strip() == ""
    for tag, attributes in page.elements:
        assert tag != "style"
        assert "style" not in attributes, tag
        assert not [name for name in attributes if name.startswith("on")], tag
        if tag == "script":
            assert attributes.get("type") == "module" and attributes.get("src")


def test_everything_the_page_loads_is_shipped_and_named_relatively(page: Tags) -> None:
    loaded = [
        address
        for _, attributes in page.elements
        for name in ("src", "href", "poster", "action")
        if (address := attributes.get(name)) is not None
    ]
    assert {"style.css", "js/main.js", "icon.svg"} <= set(loaded)
    for address in loaded:
        assert (WEB / address).is_file(), address


def test_ids_are_unique_and_labels_point_somewhere(page: Tags) -> None:
    ids = [attributes["id"] for _, attributes in page.elements if attributes.get("id")]
    assert len(ids) == len(set(ids))
    for _, attributes in page.elements:
        for name in ("for", "aria-controls"):
            assert attributes.get(name) is None or attributes[name] in ids


def test_every_id_a_module_asks_for_is_in_the_page(page: Tags) -> None:
    ids = {attributes.get("id") for _, attributes in page.elements}
    asked = {
        (module.name, name)
        for module in MODULES
        for name in re.findall(r'byId\("([^"]+)"\)', module.read_text(encoding="utf-8"))
    }
    assert asked and not [(module, name) for module, name in asked if name not in ids]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_file_is_short_and_names_no_other_origin(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= MAX_LINES
    urls = set(re.findall(r"""(?:https?:)?//[\w…-][^\s"'`)<>]*""", re.sub(r"(?m)^\s*//.*$| // .*$|/\*\*?.*?\*/", "", text)))
    assert not {url for url in urls if "://" in url and url.rstrip(".") not in ALLOWED_URLS}
    assert not re.search(r"@import|url\(\s*['\"]?(?!data:|#)[a-z]+:", text)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_module_imports_only_what_its_neighbours_export(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= MAX_MODULE_LINES
    assert text.startswith("/**"), "a module says what it is for"
    for names, source in IMPORT.findall(text):
        assert source.startswith("./"), source
        exported = set(EXPORT.findall((path.parent / source).read_text(encoding="utf-8")))
        for name in filter(None, (part.split(" as ")[0].strip() for part in names.split(","))):
            assert name in exported, f"{source} does not export {name}"
            used = text.replace(names, "", 1)
            assert re.search(rf"\b{name}\b", used), f"{name} is imported and not used"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_module_makes_no_markup_or_code_from_text(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for forbidden in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "cssText"):
        assert forbidden not in text
    assert 'setAttribute("style"' not in text


@pytest.mark.skipif(shutil.which("node") is None, reason="node parses the modules; browsers do it too, in tests/browser")
def test_modules_parse(tmp_path: Path) -> None:
    (tmp_path / "package.json").write_text('{"type": "module"}')
    for path in MODULES:
        copy = tmp_path / path.name
        copy.write_bytes(path.read_bytes())
        parsed = subprocess.run(["node", "--check", copy], capture_output=True, text=True, check=False)
        assert parsed.returncode == 0, parsed.stderr


def test_page_is_small() -> None:
    assert sum(path.stat().st_size for path in FILES) < MAX_TOTAL_BYTES
