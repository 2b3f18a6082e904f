"""Where to find the fonts that matplotlib ships: they look the same on every machine."""

from pathlib import Path


def font_file(name: str) -> str:
    import matplotlib

    return str(Path(matplotlib.get_data_path(), "fonts", "ttf", name))
