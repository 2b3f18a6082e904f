"""Source made of a CSV manifest that lists videos, or parts of them, with labels; both can be at addresses."""

import csv
import io
import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from vtcav_jax.data.remote.addresses import check_address, is_address, join_address, object_name, printable_address
from vtcav_jax.data.remote.object_store import MissingPackageError, ObjectError, read_object, store_of
from vtcav_jax.data.remote.stored_video import StoredVideo
from vtcav_jax.data.source import FileSource, SourceItem, disambiguate, one_line
from vtcav_jax.names import count_noun, unknown_name_message

MANIFEST_COLUMNS = ("path", "label", "label:HEAD", "start", "end", "boxes", "source")
MAX_MANIFEST_FAULTS = 20  # faulty rows listed in an error message
MAX_TRIED_OBJECTS = 5  # before a manifest counts as wrong


def open_manifest(path: Path, spec: str) -> FileSource:
    """Open a manifest; paths are relative to it or addresses, and one error lists all faulty rows.

    Rows of one file come from one source video; `source` names the video of files that were cut from it.
    """
    source = _source_of_rows(path.name, spec, path.read_bytes(), lambda place: _locate(path, place))
    if not any(item.path.exists() for item in source.items if item.path) and not _any_reachable(source.items):
        n, example = len(source.items), _place(source.items[0])
        raise ValueError(
            f"none of the {n} videos in {path.name} exists, such as {example}; paths are relative to the manifest's"
            " folder"
        )
    return source


def open_remote_manifest(address: str, spec: str) -> FileSource:
    """Open a manifest at an address; paths are relative to it, and cannot name local files."""
    name = one_line(object_name(address))
    source = _source_of_rows(
        name, spec, read_object(address), lambda place: (None, StoredVideo(join_address(address, place)))
    )
    if any(item.boxes for item in source.items):
        raise ValueError(f"{name} names files of boxes, which only a local manifest can; remove its column boxes")
    if not _any_reachable(source.items):
        raise ValueError(
            f"none of the first {MAX_TRIED_OBJECTS} of {len(source.items)} videos in {name} can be reached, such as"
            f" {_place(source.items[0])}; paths are relative to the manifest's folder"
        )
    return source


def _locate(manifest: Path, place: str) -> tuple[Path | None, StoredVideo | None]:
    return (None, StoredVideo(place)) if is_address(place) else (manifest.parent / place, None)


def _place(item: SourceItem) -> str:
    return str(item.stored_video or item.path)


def _any_reachable(items: Iterable[SourceItem]) -> bool:
    """Return whether one of the first objects can be reached."""
    videos = [item.stored_video for item in items if item.stored_video and not item.stored_video.fault]
    for video in videos[:MAX_TRIED_OBJECTS]:
        try:
            video.resolve()
        except ObjectError:
            continue
        return True
    return False


def _source_of_rows(
    manifest: str, spec: str, data: bytes, locate: Callable[[str], tuple[Path | None, StoredVideo | None]]
) -> FileSource:
    columns, rows = _read_manifest(manifest, data)
    heads = {name: name.removeprefix("label:") for name in columns if name == "label" or name.startswith("label:")}
    faults = [f"line {line}: {fault}" for line, row in rows if (fault := _row_fault(row))]
    if faults:
        more = f"\n  and {len(faults) - MAX_MANIFEST_FAULTS} more" if len(faults) > MAX_MANIFEST_FAULTS else ""
        lines = "\n  ".join(faults[:MAX_MANIFEST_FAULTS])
        n_faulty = count_noun(len(faults), "faulty row")
        raise ValueError(f"{manifest} has {n_faulty} of {len(rows)}; fix:\n  {lines}{more}")
    classes = {head: sorted({row[column] for _, row in rows} - {""}) for column, head in heads.items()}
    indices = {head: {name: i for i, name in enumerate(names)} for head, names in classes.items()}
    items = []
    for name, (_, row) in zip(disambiguate(_item_name(row) for _, row in rows), rows):
        labels = {head: indices[head][row[column]] for column, head in heads.items() if row[column]}
        path, stored_video = locate(row["path"])
        if stored_video and (fault := _address_fault(stored_video.location)):
            stored_video = replace(stored_video, fault=fault)
        boxes = locate(row["boxes"])[0] or Path(row["boxes"]) if row.get("boxes") else None
        items.append(
            SourceItem(
                name,
                labels,
                path,
                _parse_seconds(row, "start"),
                _parse_seconds(row, "end"),
                boxes,
                one_line(row.get("source") or _printable_place(row["path"])),
                stored_video,
            )
        )
    address_faults = [item.stored_video.fault for item in items if item.stored_video and item.stored_video.fault]
    if len(address_faults) == len(items):
        raise ValueError(address_faults[0])
    return FileSource(spec, {head: tuple(map(one_line, names)) for head, names in classes.items()}, tuple(items))


def _address_fault(address: str) -> str:
    """Return why no store reads an address, or an empty text; a missing package is an error."""
    try:
        store_of(address)
    except MissingPackageError:
        raise
    except ValueError as error:
        return str(error)
    return ""


def _read_manifest(manifest: str, data: bytes) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Return the columns, and each row with its line number."""
    try:
        reader = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        columns = [cell.strip() for cell in next(reader, [])]
        _check_columns(manifest, columns)
        rows = []
        for cells in reader:
            if any(cell.strip() for cell in cells):
                row = dict(zip(columns, (cell.strip() for cell in cells)))
                if len(cells) != len(columns):
                    row["\0"] = f"{len(cells)} cells for {len(columns)} columns; quote cells that contain commas"
                rows.append((reader.line_num, row))
    except UnicodeDecodeError as error:
        raise ValueError(f"{manifest} is not UTF-8 ({error.reason}); save it as UTF-8") from error
    except csv.Error as error:
        raise ValueError(f"{manifest} is not a CSV file ({error}); check that quotes are closed") from error
    if not rows:
        raise ValueError(f"{manifest} has no rows; expected one row per clip")
    return columns, rows


def _check_columns(manifest: str, columns: list[str]) -> None:
    heads = [name for name in columns if name.startswith("label:") and name != "label:"]
    if unexpected := [name for name in columns if name not in MANIFEST_COLUMNS and name not in heads]:
        raise ValueError(f"{manifest}: {unknown_name_message('column', map(one_line, unexpected), MANIFEST_COLUMNS)}")
    duplicates = sorted({name for name in columns if columns.count(name) > 1})
    if duplicates or ("label" in columns and "label:label" in columns):
        raise ValueError(f"{manifest} has the column {one_line((duplicates or ['label'])[0])} twice; remove one")
    if "path" not in columns:
        raise ValueError(f"{manifest} has no column path; expected a header such as path,label")


def _row_fault(row: dict[str, str]) -> str | None:
    if "\0" in row:
        return row["\0"]
    if not row["path"]:
        return "the path is empty"
    if is_address(row.get("boxes", "")):
        return f"boxes {printable_address(row['boxes'])} is an address; expected a local file"
    if is_address(row["path"]):
        try:
            check_address(row["path"])
        except ValueError as error:
            return str(error)
    numbers = {}
    for name in ("start", "end"):
        try:
            numbers[name] = _parse_seconds(row, name)
        except ValueError:
            return f"{name} {one_line(row[name])!r} is not a number of seconds"
        if numbers[name] is not None and not 0 <= numbers[name] < math.inf:
            return f"{name} {row[name]} must be 0 s or later"
    if numbers["end"] is not None and numbers["end"] <= (numbers["start"] or 0):
        return f"end {row['end']} must be after start {row.get('start') or 0}"
    return None


def _parse_seconds(row: dict[str, str], name: str) -> float | None:
    return float(row[name]) if row.get(name) else None


def _item_name(row: dict[str, str]) -> str:
    start, end = row.get("start", ""), row.get("end", "")
    return one_line(_printable_place(row["path"]) + (f" [{start or 0}-{end} s]" if start or end else ""))


def _printable_place(place: str) -> str:
    return printable_address(place) if is_address(place) else place
