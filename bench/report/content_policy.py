"""The Content-Security-Policy of our pages: nothing from the network, and only our own scripts and styles.

A browser then runs only the scripts whose SHA-256 the page names, whatever else may ever get into it, and
sends nothing anywhere. The hashes are of the assets that the page is made of, never of the finished page.
"""

from __future__ import annotations

import base64
import hashlib

# Pictures are drawn in the page: the empty icon, and what Plotly saves as a picture.
_ALWAYS = ("default-src 'none'", "base-uri 'none'", "form-action 'none'")


def static(style: str) -> str:
    """Of a page without scripts. `style`: the text of its style element."""
    return "; ".join((*_ALWAYS, "img-src data:", f"style-src {_hash(style)}"))


def drawing(style: str, *scripts: str) -> str:
    """Of a page that draws with Plotly. `scripts`: the text of each script element.

    Plotly makes an empty style element and adds rules to it, and it sets style attributes. The pictures that
    it saves are blobs.
    """
    hashes = " ".join(map(_hash, scripts))
    styles = f"style-src {_hash(style)} {_hash('')}", "style-src-attr 'unsafe-inline'"
    return "; ".join((*_ALWAYS, "img-src data: blob:", f"script-src {hashes}", *styles))


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
