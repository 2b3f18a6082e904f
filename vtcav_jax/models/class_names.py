"""Class names: the lists of public data sets in the folder `labels`, files of the user, and trees of class names."""

from collections.abc import Iterator
from dataclasses import replace
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any

from vtcav_jax.models.network import Heads, Network
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


def read_label_tree(file: str | Path, network: Network) -> dict[str, tuple[str, ...]]:
    """Return the label tree in a text file, for the `groups` of the network; one error lists all faults.

    One class or group per line, indented by more than its group; lines that start with `#` are comments. Lines with
    lines below them are groups, the others are classes of the network:

    ```text
    sports
      racket sports
        playing tennis
        playing badminton
      surfing
    music
      playing piano
    ```
    """
    try:
        lines = Path(file).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ValueError(
            f"{file} cannot be read ({reason}); expected a text file with one class or group per line"
        ) from error
    faults: list[str] = []
    groups, first_line = _parse_tree(lines, network, faults)
    if not first_line:
        faults.append("no class")
    tree = replace(network, groups=groups)
    for name in () if faults or len(network.heads) < 2 else filter(None, groups):
        heads = sorted({label.partition(":")[0] for label in tree.group_labels(name)})
        faults += [f"the group {name} has classes of several heads ({', '.join(heads)})"] if len(heads) > 1 else []
    if faults:
        raise ValueError(f"{file} is not a label tree: {'; '.join(faults)}")
    return groups


def _parse_tree(
    lines: list[str], network: Network, faults: list[str]
) -> tuple[dict[str, tuple[str, ...]], dict[str, int]]:
    """Return the children of each group and the first line of each class and group, and append faults to `faults`."""
    rows = [(number, len(line) - len(line.lstrip()), line.strip()) for number, line in _content(lines)]
    below = [next_row[1] > row[1] for row, next_row in pairwise(rows)] + [False]
    children: dict[str, list[str]] = {"": []}
    first_line: dict[str, int] = {}
    depth_of_children: dict[str, int] = {}
    parents = [(-1, "")]
    for (number, depth, name), is_group in zip(rows, below):
        while parents[-1][0] >= depth:
            parents.pop()
        parent = parents[-1][1]
        if depth_of_children.setdefault(parent, depth) != depth:
            faults.append(
                f"line {number}: {name} is indented by {depth}, but a line above it by {depth_of_children[parent]}"
            )
        try:
            name = network.labels[network.class_index(name)]
            if is_group:
                faults.append(f"line {number}: {name} is a class of the network and has lines below it")
        except ValueError:
            if is_group and name in network.heads:
                faults.append(f"line {number}: {name} is a head of the network; give the group another name")
            elif not is_group:
                faults.append(f"line {number}: {unknown_name_message('class', [name], network.labels)}")
        if name in first_line:
            faults.append(f"line {number}: {name} is also in line {first_line[name]}; each name has one place")
        first_line.setdefault(name, number)
        children[parent].append(name)
        if is_group:
            children.setdefault(name, [])
            parents.append((depth, name))
    return {name: tuple(names) for name, names in children.items()}, first_line


def _content(lines: list[str]) -> Iterator[tuple[int, str]]:
    """Yield number and text of the lines with names, with tabs as spaces."""
    for number, line in enumerate(lines, start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            yield number, line.expandtabs()


def _folder() -> Any:
    return resources.files("vtcav_jax.models").joinpath("labels")
