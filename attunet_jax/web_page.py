"""The parts of which the project's pages are made: one self-contained HTML file each.

Nothing that a page shows is fetched from anywhere, and nothing that it holds runs, save
the scripts given here: its Content-Security-Policy names them by checksum. Texts come
from files of others and are escaped by whoever puts them into a page.
"""

import base64
import hashlib
from collections.abc import Iterable, Sequence
from html import escape


def document(title: str, body: str, *, style: str = "", script: str = "") -> str:
    """Returns a page of `body`, HTML; `style` stands after `STYLE`.

    `script` runs when all of the page is there. No other does, whatever the names of
    files that the page shows contain.
    """
    runs = f"<script>{script}</script>\n" if script else ""
    return "".join(
        [
            "<!DOCTYPE html>\n<html lang=en>\n<head>\n<meta charset=utf-8>\n",
            '<meta name=viewport content="width=device-width, initial-scale=1">\n',
            '<meta http-equiv="Content-Security-Policy" content="default-src '
            f"'none'; img-src data:; style-src 'unsafe-inline'{_allowed(script)}\">\n",
            f"<title>{escape(title)}</title>\n<style>{STYLE}{style}</style>\n</head>\n",
            f"<body>\n{body}{runs}</body>\n</html>\n",
        ]
    )


def table(head: str, lines: Iterable[str], attributes: str = "") -> str:
    """Returns a table that scrolls where it is too large; `lines` are its rows."""
    body = "\n".join(lines)
    return (
        f"<div class=wide><table{attributes}>\n<thead>{head}</thead>\n"
        f"<tbody>{body}</tbody></table></div>\n"
    )


def picture(image: bytes, kind: str, size: Sequence[int], alt: str) -> str:
    """Returns an image that the page holds itself.

    Args:
      kind: "png", "jpeg" or "webp".
      size: width and height in pixels.
      alt: what it shows, for those who do not see it.
    """
    return (
        f"<img decoding=async width={size[0]} height={size[1]} "
        f'alt="{escape(alt, quote=True)}" src="data:image/{kind};base64,'
        f'{base64.b64encode(image).decode()}">'
    )


def _allowed(script: str) -> str:
    if not script:
        return ""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"; script-src 'sha256-{digest}'"


# Light and dark, for screens of any width and for paper.
STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --dim: #5d6771; --ground: #ffffff;
  --panel: #f5f6f8; --line: #dde1e6; --link: #0b5cad; --error: #b3261e;
  --warning: #8a5a00; --fine: #1f7a3f; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7ea; --dim: #9aa4ae;
  --ground: #14171a; --panel: #1d2125; --line: #333a41; --link: #7db8f0;
  --error: #ff8a80; --warning: #f0b955; --fine: #79cf95; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem; max-width: 72rem; background: var(--ground);
  color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; overflow-wrap: anywhere; margin: 0 0 .5rem; }
h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
h3 { font-size: 1.05rem; margin: 0 0 .5rem; overflow-wrap: anywhere; }
a { color: var(--link); }
.wide { overflow: auto; max-height: 32rem; }
table { border-collapse: collapse; font-size: .875rem; }
th, td { text-align: left; padding: .25rem .75rem .25rem 0; vertical-align: top;
  border-bottom: 1px solid var(--line); }
th { color: var(--dim); font-weight: 600; position: sticky; top: 0;
  background: var(--ground); }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.links { overflow-wrap: anywhere; min-width: 9rem; }
.organ { white-space: nowrap; }
.legend { color: var(--dim); font-size: .875rem; max-width: 48rem; }
.tag { font-size: .75rem; font-weight: 600; border: 1px solid currentColor;
  border-radius: .25rem; padding: 0 .35rem; white-space: nowrap; }
.error .tag, .bad { color: var(--error); }
.warning .tag { color: var(--warning); }
.fine .tag, .good { color: var(--fine); }
.bad, .good { font-weight: 600; margin: 0; }
.pictures { display: flex; flex-wrap: wrap; gap: .75rem; align-items: flex-end; }
figure { margin: 0; }
figure img { display: block; background: #000; max-width: 100%; height: auto; }
figcaption { color: var(--dim); font-size: .8rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; margin: 0;
  font-size: .875rem; align-content: start; }
dt { color: var(--dim); }
dd { margin: 0; overflow-wrap: anywhere; }
.swatch { display: inline-block; width: .8em; height: .8em; margin-right: .45em;
  border: 1px solid #0006; border-radius: .15em; vertical-align: -.05em; }
@media print { .wide { max-height: none; } }
"""
