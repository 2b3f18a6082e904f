"""Stylesheets, scripts and markup shipped as files in the package."""

from functools import cache
from importlib.resources import files


@cache
def read_asset(package: str, name: str) -> str:
    """Return the text of `assets/NAME` inside `package`."""
    return files(package).joinpath("assets", name).read_text(encoding="utf-8")
