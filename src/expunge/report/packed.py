"""Packed: Plotly's script, compressed so that a report is small enough to mail."""

import base64
import gzip
from functools import cache

from markupsafe import Markup
from plotly.offline import get_plotlyjs


@cache
def plotly() -> Markup:
    """Return Plotly's script, its licence included, as gzip in base64; ``draw.js`` unpacks and runs it."""
    packed = gzip.compress(get_plotlyjs().encode(), compresslevel=9, mtime=0)
    return Markup(base64.b64encode(packed).decode("ascii"))  # noqa: S704  # base64 holds no markup
