"""Sources at addresses: a single video, or a folder of a store."""

from pathlib import PurePosixPath

from vtcav_jax.data.folder import is_video_name, no_video_message
from vtcav_jax.data.remote.addresses import is_web, object_name
from vtcav_jax.data.remote.object_store import store_of
from vtcav_jax.data.remote.stored_video import StoredVideo
from vtcav_jax.data.source import FileSource, SourceItem, disambiguate, one_line


def open_remote_videos(address: str, spec: str) -> FileSource:
    """Open a video at an address, or all videos of a folder, labelled like those of a local folder."""
    if is_web(address):
        if address.endswith("/"):
            raise ValueError(
                f"{spec} is a folder of a web server, which cannot be listed; pass the address of a manifest"
                " (FILE.csv) or of a video"
            )
    elif store_of(address).is_folder(address):
        return _open_remote_folder(address.rstrip("/"), spec)
    video = StoredVideo(address)
    video.resolve()
    return FileSource(spec, {}, (SourceItem(one_line(object_name(address)), stored_video=video),))


def _open_remote_folder(address: str, spec: str) -> FileSource:
    objects = [PurePosixPath(path) for path in store_of(address).list_objects(address)]
    paths = [path for path in objects if _is_video(path)]
    if not paths:
        raise ValueError(no_video_message(spec, map(str, objects)))
    loose = [path for path in paths if len(path.parts) == 1]
    if 0 < len(loose) < len(paths):
        raise ValueError(
            f"{spec} contains class folders and {len(loose)} videos without a class ({loose[0]!s:.100}); move them into"
            " a folder, or use a CSV manifest"
        )
    classes = [] if loose else sorted({path.parts[0] for path in paths})
    class_index = {name: i for i, name in enumerate(classes)}
    items = (
        SourceItem(
            name,
            {"label": class_index[path.parts[0]]} if classes else {},
            stored_video=StoredVideo(f"{address}/{path.as_posix()}"),
        )
        for name, path in zip(disambiguate(one_line(path.as_posix()) for path in paths), paths)
    )
    return FileSource(spec, {"label": tuple(map(one_line, classes))} if classes else {}, tuple(items))


def _is_video(path: PurePosixPath) -> bool:
    return not any(part.startswith(".") for part in path.parts) and is_video_name(path.name)
