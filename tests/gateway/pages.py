"""What a page says, as its reader sees it: however the lines of its template are laid out."""

import re

from django.http import HttpResponse


def said(page: HttpResponse) -> str:
    """The page's text and markup, white space as a browser shows it; thin spaces stay."""
    return re.sub(r"[ \t\r\n]+", " ", page.content.decode())
