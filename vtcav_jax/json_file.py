"""Reading of JSON files that may come from elsewhere."""

import json
from pathlib import Path
from typing import Any


def load_json(path: Path) -> Any:
    """Return the content of a JSON file; raise ValueError if it is not JSON, or is nested too deeply for Python."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
