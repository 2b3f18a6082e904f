"""Stylesheets, scripts and markup that ship with the package as files of their own."""

from functools import cache
from importlib.resources import files


@cache
def read_asset(package: str, name: str) -> str:
    """The text of `assets/NAME` inside `package`."""
    return files(package).joinpath("assets", name).read_text(encoding="utf-8")
