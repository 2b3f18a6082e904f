"""Paths of the fonts that matplotlib ships, which are identical on every machine."""

from pathlib import Path


def font_file(name: str) -> str:
    import matplotlib

    return str(Path(matplotlib.get_data_path(), "fonts", "ttf", name))
