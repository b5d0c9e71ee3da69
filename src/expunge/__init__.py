"""expunge: make a trained neural network forget, fast, and prove how well it worked.

Names are imported when first used, so that the command line answers ``--help`` without importing torch.
"""

import importlib
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from expunge.api import audit as audit
    from expunge.api import forget as forget
    from expunge.errors import ExpungeError as ExpungeError
    from expunge.finding import Finding as Finding
    from expunge.forgetting import Forgotten as Forgotten
    from expunge.report.page import render as render
    from expunge.request import Request as Request
    from expunge.result import Bill as Bill
    from expunge.result import Result as Result

_HOMES = {
    "Bill": "result",
    "ExpungeError": "errors",
    "Finding": "finding",
    "Forgotten": "forgetting",
    "Request": "request",
    "Result": "result",
    "audit": "api",
    "forget": "api",
    "render": "report.page",
}

__version__: str
"""As installed."""

__all__ = ["Bill", "ExpungeError", "Finding", "Forgotten", "Request", "Result", "audit", "forget", "render"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version("expunge")
    if name not in _HOMES:
        raise AttributeError(f"module 'expunge' has no attribute {name!r}")
    return getattr(importlib.import_module(f"expunge.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
