"""`open_source`: opens the source that a specification names, such as "FOLDER", "FILE.csv" or "tfds:NAME:SPLIT"."""

from pathlib import Path

from vtcav_jax.data.annotations import ANNOTATION_KINDS, open_annotations
from vtcav_jax.data.remote import addresses, listing, shards
from vtcav_jax.data.remote.object_store import ObjectError
from vtcav_jax.data.source import FileSource, Source, SourceItem, one_line
from vtcav_jax.names import unknown_name_message

SOURCE_KINDS = {
    "FOLDER": "one folder of videos per class, or videos without labels",
    "FILE": "one video",
    "FILE.csv": "a manifest with the columns path and optionally label, label:HEAD, start, end, boxes, source",
    "tfds:NAME:SPLIT": "a local TFDS dataset; append ?data_dir=FOLDER if it is not in TFDS's default folder",
    "SHARDS.tar": "WebDataset shards, such as shards-{000..007}.tar; files or addresses",
    "ADDRESS": "a video, manifest or shards at https://, or those or a folder at gs://, s3:// or another store",
    "worlds:NAME:N:SEED": "N clips of a synthetic world; N and SEED are optional",
    **ANNOTATION_KINDS,
}


def open_source(spec: str | Path) -> Source:
    """Open the source that `spec` names; `SOURCE_KINDS` lists the formats.

    Raises ValueError if the specification is wrong; unreadable videos are reported when they are read.

    ```python
    source = open_source("videos")
    clip = source.read(0, model.clip_spec, SamplingConfig())
    ```
    """
    text = str(spec)
    path = Path(text).expanduser()
    scheme, colon, rest = text.partition(":")
    if addresses.is_address(text) or (shards.is_shard_pattern(text) and not path.is_dir()):
        return _open_stored(text, path)
    if path.is_dir():
        from vtcav_jax.data import decoded_dataset, folder

        dataset_folder = decoded_dataset.find_prepared(path)
        return (
            decoded_dataset.open_prepared(dataset_folder, text)
            if dataset_folder
            else folder.open_video_folder(path, text)
        )
    if path.exists():
        if path.suffix.lower() == ".csv":
            from vtcav_jax.data import manifest

            return manifest.open_manifest(path, text)
        return FileSource(text, {}, (SourceItem(one_line(path.name), {}, path),))
    data_sets = [kind.partition(":")[0] for kind in ANNOTATION_KINDS]
    if scheme in data_sets and colon:
        return open_annotations(scheme, rest, text)
    if scheme == "worlds" and colon:
        from vtcav_jax.data import world_source

        return world_source.open_world(rest, text)
    if scheme == "tfds" and colon:
        from vtcav_jax.data import decoded_dataset, tfds

        dataset_folder, split = tfds.find_tfds_folder(rest, text)
        if (dataset_folder / decoded_dataset.DATASET_INDEX_FILE).exists():
            return decoded_dataset.open_prepared(dataset_folder, text, split)
        return tfds.make_tfds_source(dataset_folder, split, text)
    kinds = ["tfds", "worlds", *data_sets]
    if colon and scheme.isidentifier() and len(scheme) > 1 and "/" not in scheme:
        raise ValueError(f"{unknown_name_message('kind of source', [scheme], kinds)}, and there is no file {text}")
    raise ValueError(f"there is no file or folder {text}; a source is one of {', '.join(SOURCE_KINDS)}")


def _open_stored(text: str, path: Path) -> Source:
    """Open tar files, or what is at an address."""
    if not addresses.is_address(text):
        return shards.open_shards(str(path), text)
    addresses.check_recordable(text)
    try:
        if shards.is_shard_pattern(addresses.object_name(text)):
            return shards.open_shards(text, text)
        if addresses.object_suffix(text) == ".csv":
            from vtcav_jax.data import manifest

            return manifest.open_remote_manifest(text, text)
        return listing.open_remote_videos(text, text)
    except ObjectError as error:
        raise ValueError(str(error)) from error
