"""The forms of a page as a person would send them: as they stand, empty fields filled."""

from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Final

# By an input's type; a text says nothing that is wrong anywhere.
FILLED: Final = {
    "number": "1",
    "email": "somebody@example.org",
    "date": "2026-01-31",
    "datetime-local": "2026-01-31T12:00",
    "url": "https://example.org/hook",
}
TEXT: Final = "tests"
NOT_SENT: Final = ("submit", "button", "image", "reset", "file")


@dataclass
class Form:
    action: str
    method: str
    fields: dict[str, list[str]] = field(default_factory=dict)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.forms: list[Form] = []
        self._open: Form | None = None
        self._select = ""
        self._area = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        said = {name: value or "" for name, value in attrs}
        if tag == "form":
            self._open = Form(said.get("action", ""), said.get("method", "get").lower())
            self.forms.append(self._open)
        name = said.get("name", "")
        if self._open is None or (not name and tag != "option"):
            return
        values = self._open.fields.setdefault(name, []) if name else []
        if tag == "input" and said.get("type", "text") not in NOT_SENT:
            is_box = said.get("type") in ("checkbox", "radio")
            if is_box and "checked" in said:
                values.append(said.get("value", "on"))
            elif not is_box:
                values.append(said.get("value") or FILLED.get(said.get("type", ""), TEXT))
        elif tag == "select":
            self._select = name
        elif tag == "textarea":
            self._area = name
            values.append("")
        elif tag == "option" and self._select:
            chosen = self._open.fields[self._select]
            if "selected" in said or not chosen:
                chosen[:] = [said.get("value", "")]

    def handle_data(self, text: str) -> None:
        if self._open is not None and self._area:
            self._open.fields[self._area][-1] += text

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._open = None
        elif tag == "select":
            self._select = ""
        elif tag == "textarea":
            self._area = ""


def forms_of(html: str) -> list[Form]:
    """Those that change something."""
    reader = _Reader()
    reader.feed(html)
    return [form for form in reader.forms if form.method == "post"]
