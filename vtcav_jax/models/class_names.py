"""Class names: the lists of public data sets in the folder `labels`, and files of the user."""

from importlib import resources
from pathlib import Path
from typing import Any

from vtcav_jax.models.network import Heads
from vtcav_jax.names import unknown_name_message


def label_lists() -> list[str]:
    """Return the names of the shipped lists of class names."""
    return sorted(file.name.removesuffix(".txt") for file in _folder().iterdir() if file.name.endswith(".txt"))


def read_labels(name_or_file: str | Path) -> list[str]:
    """Return the class names of a shipped list, or of a text file with one name per line.

    ```python
    names = models.read_labels("ucf101")
    ```
    """
    name = str(name_or_file)
    if name in label_lists():
        return _folder().joinpath(f"{name}.txt").read_text(encoding="utf-8").splitlines()
    file = Path(name_or_file)
    if not file.is_file():
        raise ValueError(f"no file {name} and {unknown_name_message('list of class names', [name], label_lists())}")
    try:
        return file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not UTF-8 text ({error})") from error


def relabel(heads: Heads, text: str) -> dict[str, tuple[str, ...]]:
    """Return heads with other class names: `LIST` for a single head, or `HEAD:LIST,HEAD:LIST`.

    LIST is a shipped list or a file; heads that are not mentioned keep their names.
    """
    pairs = [item.partition(":") for item in text.split(",")] if len(heads) > 1 else [(*heads, ":", text)]
    lists = {head: names for head, _, names in pairs}
    if len(lists) < len(pairs) or not all(lists.values()):
        example = ",".join(f"{head}:FILE" for head in heads)
        raise ValueError(f"expected one list of class names per head, as in {example}; got {text}")
    if unknown := [head for head in lists if head not in heads]:
        raise ValueError(unknown_name_message("head", unknown, heads))
    return {
        head: tuple(validate_labels(read_labels(lists[head]), len(names), lists[head]) if head in lists else names)
        for head, names in heads.items()
    }


def validate_labels(labels: Any, num_classes: int, where: str) -> list[str]:
    """Return the labels if they are one unique printable name per class, else raise ValueError."""
    if not isinstance(labels, list) or len(labels) != num_classes or not labels:
        count = f"{len(labels)} names" if isinstance(labels, list) else repr(labels)
        raise ValueError(f"{where}: {count} for {num_classes} classes; expected one name per class")
    if wrong := [i for i, name in enumerate(labels) if not isinstance(name, str) or not name or not name.isprintable()]:
        raise ValueError(f"{where}: the names of classes {wrong[:10]} are empty or contain unprintable characters")
    if len(set(labels)) < len(labels):
        duplicates = sorted({name for name in labels if labels.count(name) > 1})
        raise ValueError(f"{where}: several classes are named {', '.join(duplicates[:5])}; expected unique names")
    return labels


def _folder() -> Any:
    return resources.files("vtcav_jax.models").joinpath("labels")
