"""The parts of an audio file that libsndfile reads to their end.

Where libsndfile would stop before the end of a file (at the estimated length of an MP3, at the first of several joined
recordings, at a length that a recorder never wrote), it is given each part by itself, or a mended head.
"""

import os
import re
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import BinaryIO, TypeAlias

CHUNK_BYTES = 2**16
ENDLESS = 2**40  # bytes, or samples
MAX_PARTS = 10_000  # chunks, tags, joined recordings or false heads: of more, a small file would take minutes

# Files of chunks, AIFF and CAF among them: where the first one begins, and how the head of each is packed.
CHUNKED = {mark: (12, "<4sI") for mark in (b"RIFF", b"RF64", b"BW64")}
CHUNKED |= {b"RIFX": (12, ">4sI"), b"FORM": (12, ">4sI"), b"caff": (8, ">4sq")}
AU_MARKS = {b".snd": ">", b"dns.": "<"}  # with the order of their bytes

MpegFrame: TypeAlias = tuple[int, int, int, bool]  # bytes, samples, rate in Hz, whether it is mono
Source: TypeAlias = "BinaryIO | Part"

# kbit/s by the index in an MPEG frame's header, from 1, for MPEG 1 or not and each layer
MPEG_BITRATES = {
    (True, 1): range(32, 449, 32),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}


class UnreadableAudio(ValueError):
    """A file that libsndfile would read in part or wrongly."""


class Part:
    """
    The bytes of a file from `start` to `stop`, as libsndfile reads them.

    Args:
        file (`Source`): The whole file.
        start, stop (`int`): The part, in bytes.
        patches (`dict[int, bytes]`, *optional*): Bytes of the part to replace, by their place.
        endless (`bool`, *optional*, defaults to `False`): Whether to pretend that the end is far away, so that no
            length is estimated from it.

    `excess` says how much longer than its head declares the sound is, and `is_cut` whether its end is missing.
    """

    def __init__(
        self, file: Source, start: int, stop: int, patches: dict[int, bytes] | None = None, endless: bool = False
    ):
        self.file, self.start, self.size, self.patches = file, start, stop - start, patches or {}
        self.lead = 4 * ENDLESS if endless else 0  # a sample takes up to 2.5 bytes
        self.place, self.told = 0, 0
        self.excess, self.is_cut = 1.0, False

    def read(self, num_bytes: int) -> bytes:
        self.file.seek(self.start + self.place)
        content = self.file.read(max(0, min(num_bytes, self.size - self.place)))
        for place, patch in self.patches.items():
            if place < self.place + len(content) and self.place < place + len(patch):
                content = _patched(content, place - self.place, patch)
        self.place += len(content)
        self.told = self.place
        return content

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self.place = max(0, offset + (0, self.place, self.size)[whence])
        self.told = self.place + (self.lead if whence == os.SEEK_END else 0)
        return self.told

    def tell(self) -> int:
        return self.told


def _patched(content: bytes, place: int, patch: bytes) -> bytes:
    """Writes over bytes at a place that may lie in part before or behind them."""
    patch, place = patch[max(0, -place) :], max(0, place)
    patch = patch[: len(content) - place]
    return content[:place] + patch + content[place + len(patch) :]


def split(file: Source) -> tuple[list[Part], float | None]:
    """The parts of a file that libsndfile reads one by one, and the seconds that an MP3 file declares."""
    file = _without_lead(file)
    size = file.seek(0, os.SEEK_END)
    head = _head_at(file, 0)
    if head[:4] == b"OggS":
        return _ogg_parts(file, size), None
    if head[:4] == b"fLaC":
        return _parts(file, _flac_starts(file), size), None
    if _mpeg_frame(head) and (files := _joined_mpeg_files(file, size)):
        stops = [mpeg.start for mpeg in files[1:]] + [size]
        seconds = sum(mpeg.seconds() for mpeg in files)
        pairs = zip(files, stops, strict=True)
        return [Part(file, mpeg.start, stop, endless=mpeg.declared is None) for mpeg, stop in pairs], seconds
    parts = _parts(file, _sized_starts(file, size), size)
    for part in parts:
        _mend(part, head[:4])
        part.seek(0)
    return parts, None


def _parts(file: Source, starts: list[int], size: int) -> list[Part]:
    return [Part(file, start, stop) for start, stop in pairwise([*starts, size])]


def _check_parts(number: int) -> None:
    if number > MAX_PARTS:
        raise UnreadableAudio(f"it has more than {MAX_PARTS} parts.")


def _without_lead(file: Source) -> Source:
    """The file behind tags and, of an MP3 file, behind zeros."""
    start = num_tags = 0
    while tag := _tag_bytes(_head_at(file, start)):
        start, num_tags = start + tag, num_tags + 1
        _check_parts(num_tags)
    if _head_at(file, start).startswith(bytes(4)) and _mpeg_frame(_head_at(file, start + _zero_bytes(file, start))):
        start += _zero_bytes(file, start)
    return Part(file, start, max(start, file.seek(0, os.SEEK_END))) if start else file


def _head_at(file: Source, place: int) -> bytes:
    file.seek(place)
    return file.read(24)


def _zero_bytes(file: Source, place: int) -> int:
    """The number of zeros at a place."""
    file.seek(place)
    count = 0
    while chunk := file.read(CHUNK_BYTES):
        count += len(chunk) - len(chunk.lstrip(b"\0"))
        if chunk.lstrip(b"\0"):
            break
    return count


def _tag_bytes(head: bytes) -> int:
    """The length of the ID3 or APE tag with this head; 0 where there is none."""
    if head[:8] == b"APETAGEX" and len(head) == 24:  # at the head of a tag or, without a bit of these, at its foot
        return 32 + (int.from_bytes(head[12:16], "little") if head[23] & 0x20 else 0)
    if head[:3] != b"ID3" or len(head) < 10:
        return 0
    return 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))


def _sized_starts(file: Source, size: int) -> list[int]:
    """Where each of the joined WAV, AIFF or AU files begins: the head of each says how long it is."""
    starts = [0]
    mark = _head_at(file, 0)[:4]
    while starts[-1] + 12 <= size and (mark in AU_MARKS or mark in CHUNKED):
        first, second = struct.unpack_from(f"{_order(mark)}4x2I", _head_at(file, starts[-1]))
        place = starts[-1] + max(8, first + second if mark in AU_MARKS else 8 + first + first % 2)
        if _head_at(file, place)[:4] != mark:
            break
        starts.append(place)
        _check_parts(len(starts))
    return starts


def _order(mark: bytes) -> str:
    """The order of the bytes in a file that begins so."""
    return AU_MARKS[mark] if mark in AU_MARKS else CHUNKED[mark][1][0]


def _mend(part: Part, mark: bytes) -> None:
    """Writes over a head that libsndfile does not know, or whose recorder never wrote the length of the sound."""
    if mark in CHUNKED:
        _mend_chunks(part, mark)
    if mark == b"BW64":  # the younger name
        part.patches[0] = b"RF64"
    if mark in AU_MARKS and part.size >= 12:  # nothing but sound follows the head
        start, length = struct.unpack_from(f"{_order(mark)}4x2I", _head_at(part, 0))
        part.patches = {8: b"\xff" * 4} if start + length < part.size else {}


def _mend_chunks(part: Part, mark: bytes) -> None:
    start, layout = CHUNKED[mark]
    data_size_64 = None
    for name, place, length, body in _chunks(part, start, part.size, layout):
        if name == b"ds64":
            data_size_64 = struct.unpack("<Q", body[8:16])[0]
        if name not in (b"data", b"SSND"):
            continue
        rest = part.size - place
        if length == 2**32 - 1 and data_size_64 in (0, 2**64 - 1):
            part.patches = {20: struct.pack("<Q", part.size - 8), 28: struct.pack("<Q", rest)}
        elif mark == b"caff" and length in (-1, 0):
            part.patches = {place - 8: struct.pack(">q", rest)}
        elif length == 0 and rest and name == b"data" and not _are_chunks(part, place, layout):
            longest = struct.pack(f"{layout[0]}I", min(rest, 2**32 - 1))
            part.patches = {4: longest, place - 4: longest}
        else:
            length = data_size_64 if length == 2**32 - 1 and data_size_64 else length
            if 0 < length < rest and not _are_chunks(part, place + _padded(length, layout), layout):
                part.excess = rest / length
        return


def _chunks(file: Source, place: int, size: int, head: str) -> Iterator[tuple[bytes, int, int, bytes]]:
    """Name, place, declared length and first 16 bytes of each chunk, whose head is packed so."""
    num_chunks, head_bytes = 0, struct.calcsize(head)
    while place + head_bytes <= size:
        num_chunks += 1
        _check_parts(num_chunks)
        file.seek(place)
        name, length = struct.unpack(head, file.read(head_bytes))
        place += head_bytes
        yield name, place, length, file.read(16).ljust(16, b"\0")
        place += _padded(max(0, length), head)


def _padded(length: int, head: str) -> int:
    """How much room a chunk of this length takes: all but those of CAF begin at an even place."""
    return length if head.endswith("q") else length + length % 2


def _are_chunks(part: Part, place: int, layout: str) -> bool:
    """Whether what follows is chunks to the end, and no sound."""
    stop = place
    for name, start, length, _ in _chunks(part, place, part.size, layout):
        if not name.strip().isalnum():
            return False
        if name == b"data":
            raise UnreadableAudio("it has several chunks of sound.")
        stop = start + length
    return part.size - 1 <= stop <= part.size


def _ogg_parts(file: Source, size: int) -> list[Part]:
    """The recordings that are chained in an Ogg file; the last one is cut short if its last page is not its end."""
    starts, place, in_heads, ends = [], 0, False, False
    while place < size:
        file.seek(place)
        head = file.read(27)
        if len(head) < 27 or head[:4] != b"OggS":
            place = _find(file, b"OggS", place + 1)
            if place < 0:
                break
            continue
        begins = bool(head[5] & 2)
        if begins and not in_heads:  # several streams that run side by side begin together
            starts.append(place)
            _check_parts(len(starts))
        in_heads = begins
        place += 27 + head[26] + sum(file.read(head[26]))
        ends = bool(head[5] & 4) and place <= size
    parts = _parts(file, [0, *starts[1:]], size)
    parts[-1].is_cut = not ends
    return parts


def _flac_starts(file: Source) -> list[int]:
    """Where each of the joined FLAC files begins: at its mark and the head of its first block."""
    starts, place, num_marks = [0], 4, 0
    while (place := _find(file, b"fLaC", place)) >= 0:
        num_marks += 1
        _check_parts(num_marks)
        file.seek(place + 4)
        if file.read(4) in (b"\0\0\0\x22", b"\x80\0\0\x22"):
            starts.append(place)
        place += 4
    return starts


def has_more_frames(flac: Part) -> bool:
    """Whether frames follow what was read of a FLAC file: they begin as its first one does."""
    place, first, head = flac.place, 4, b"fLaC"
    while len(head) == 4 and not head[0] & 0x80:  # the last block in front of the frames
        flac.seek(first)
        head = flac.read(4)
        first += 4 + int.from_bytes(head[1:], "big")
    flac.seek(first)
    mark = flac.read(3)
    return len(mark) == 3 and _find(flac, mark, place) >= 0


def _find(file: Source, mark: bytes, place: int) -> int:
    """The place of the next mark, -1 where there is none."""
    file.seek(place)
    kept = b""
    while chunk := file.read(CHUNK_BYTES):
        found = (kept + chunk).find(mark)
        if found >= 0:
            return place - len(kept) + found
        place += len(chunk)
        kept = (kept + chunk)[1 - len(mark) :]
    return -1


def _mpeg_frame(head: bytes) -> MpegFrame | None:
    """The MPEG frame with this head; `None` where it is no head."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)  # 3: MPEG 1, 2: MPEG 2, 0: MPEG 2.5
    bitrate, rate = head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or layer == 4 or bitrate in (0, 15) or rate == 3:
        return None
    hertz = (44_100, 48_000, 32_000)[rate] >> {3: 0, 2: 1, 0: 2}[version]
    samples = 384 if layer == 1 else 576 if layer == 3 and version != 3 else 1152
    slot = 4 if layer == 1 else 1
    length = samples // 8 * 1000 * MPEG_BITRATES[version == 3, layer][bitrate - 1] // hertz // slot
    return (length + (head[2] >> 1 & 1)) * slot, samples, hertz, head[3] >> 6 == 3


def _mpeg_frames(file: Source, size: int) -> Iterator[tuple[int, MpegFrame]]:
    """The place and the format of each MPEG frame that follows another one or that another one follows."""
    place, in_step, num_false = 0, False, 0
    while place + 4 <= size:
        frame = _frame_at(file, place)
        if frame and (in_step or _frame_at(file, place + frame[0])):
            yield place, frame
            place, in_step = place + frame[0], True
            continue
        tag = _tag_bytes(_head_at(file, place))
        num_false += bool(frame or tag)
        _check_parts(num_false)
        place += tag or _bytes_to_sync(file, place)
        in_step = False


def _frame_at(file: Source, place: int) -> MpegFrame | None:
    return _mpeg_frame(_head_at(file, place))


def _bytes_to_sync(file: Source, place: int) -> int:
    """How far it is to what may be the next frame or tag."""
    file.seek(place + 1)
    chunk = file.read(1024)
    found = re.search(rb"\xff[\xe2-\xff][\x10-\xef]|ID3|APETAGEX", chunk)
    return 1 + (found.start() if found else max(0, len(chunk) - 2))


@dataclass
class _MpegFile:
    """One of the MP3 files that are joined in one."""

    start: int
    declared: int | None  # the number of its frames by its first one
    frame_seconds: float
    num_frames: int = 0
    formats: Counter[tuple[int, bool]] = field(default_factory=Counter)

    def is_over(self) -> bool:
        return self.num_frames == self.declared

    def changes(self) -> bool:
        """Whether its format changes, and not only that of a damaged frame or two."""
        return self.num_frames > 2 + max(self.formats.values(), default=0)

    def seconds(self) -> float:
        """How long it lasts at least: decoders take up to four frames of padding away."""
        return (max(self.declared or 0, self.num_frames) - 4) * self.frame_seconds


def _joined_mpeg_files(file: Source, size: int) -> list[_MpegFile]:
    """The MP3 files in one: each begins with a frame that declares their number, or where the last one is over."""
    files: list[_MpegFile] = []
    for place, (length, samples, rate, is_mono) in _mpeg_frames(file, size):
        file.seek(place)
        declared = _declared_frames(file.read(min(length, 192)))
        if not files or declared is not None or files[-1].is_over():
            files.append(_MpegFile(place, declared, samples / rate))
            _check_parts(len(files))
        if declared is None:
            files[-1].num_frames += 1
            files[-1].formats[rate, is_mono] += 1
    # One or two frames more than a file declares are no file of their own.
    files = files[:1] + [part for part in files[1:] if part.declared is not None or part.num_frames > 2]
    if any(part.changes() for part in files):
        raise UnreadableAudio("its rate or its number of channels changes.")
    return files


def _declared_frames(frame: bytes) -> int | None:
    """The number of frames that follow, which the first MPEG frame of a file may hold."""
    for mark in (b"Xing", b"Info"):
        place = frame.find(mark, 4, 48)
        if place >= 0 and len(frame) >= place + 12 and frame[place + 7] & 1:
            return struct.unpack(">I", frame[place + 8 : place + 12])[0] or None  # some encoders leave a 0 there
    return None
