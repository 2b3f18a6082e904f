"""Boxes of MP4 files, as far as needed to tell their tables from their frames."""

import io
import struct

MAX_BOXES = 64  # a file in fragments has one or two for each fragment, between the frames


def media_ranges(file: io.RawIOBase) -> list[tuple[int, int]]:
    """Return the ranges of the bytes of frames in an MP4 or MOV file; none if its tables are between the frames.

    Only the headers of the outermost boxes are read.
    """
    size = file.seek(0, 2)
    ranges, place = [], 0
    for _ in range(MAX_BOXES):
        if place >= size:
            return ranges
        file.seek(place)
        header = file.read(16) or b""
        if len(header) < 8:
            return ranges
        length, kind = struct.unpack(">I4s", header[:8])
        header_length = 8
        if length == 1 and len(header) == 16:
            (length,), header_length = struct.unpack(">Q", header[8:]), 16
        end = size if length == 0 else place + length
        if end < place + header_length or kind == b"moof":
            return []
        if kind == b"mdat":
            ranges.append((place + header_length, min(end, size)))
        place = end
    return []
