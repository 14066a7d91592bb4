"""Small Bruker files (.bcf), written from counts: a container of blocks with an XML and the lists of pixels."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

BLOCK = 0x1000
INFLATED = 4096
"""Bytes of a compressed part; real files have 524288, and so only few parts."""


def pulses(counts: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.repeat(np.arange(counts.size), counts).astype("u2")


def packed_12bit(channels: np.ndarray[Any, Any]) -> bytes:
    """Four channels in six bytes; an incomplete last group has as many bytes as it needs, made even."""
    out = bytearray()
    for first in range(0, channels.size, 4):
        a, b, c, d = (int(v) for v in np.pad(channels[first : first + 4], (0, 4))[:4])
        out += bytes([(a << 4 | b >> 8) & 255, a >> 4, (c >> 4) & 255, b & 255, (d & 255), (c & 15) << 4 | d >> 8])
    return bytes(out)


def runs(counts: np.ndarray[Any, Any]) -> bytes:
    """Runs of zeros, and of channels with a gain and values of a nibble, 8 or 16 bits each, as they fit."""
    out, channel = bytearray(), 0
    while channel < counts.size:
        stop = channel + 1
        if counts[channel] == 0:
            while stop < min(counts.size, channel + 255) and counts[stop] == 0:
                stop += 1
            out += bytes([0, stop - channel])
        else:
            while stop < min(counts.size, channel + 20) and counts[stop]:
                stop += 1
            part = counts[channel:stop]
            gain = int(part.min()) if part.max() < 65536 else 0
            most = int(part.max()) - gain
            width = 1 if most < 16 and gain < 256 else 2 if most < 256 else 4 if most < 65536 else 8
            out += bytes([width, part.size]) + gain.to_bytes(width, "little")
            values = [int(v) - gain for v in part]
            if width == 1:
                values += [0] * (len(values) % 2)
                out += bytes(low | high << 4 for low, high in zip(values[::2], values[1::2], strict=True))
            else:
                out += b"".join(v.to_bytes(width // 2, "little") for v in values)
        channel = stop
    return bytes(out)


def record(x: int, counts: np.ndarray[Any, Any], flag: int, extra: int = 0) -> bytes:
    """A pixel; with ``extra`` some X-rays of a pixel of runs are listed one by one behind them."""
    if flag < 2:
        listed = pulses(counts)
        data = listed.astype("<u2").tobytes() if flag == 0 else packed_12bit(listed)
        number, second = listed.size, 0
    else:
        listed = pulses(counts)[:extra]
        rest = counts - np.bincount(listed, minlength=counts.size)
        data = runs(rest) + struct.pack("<I", 2 * listed.size)
        number, second = listed.size, len(data) & 0xFFFF
    head = struct.pack("<IHHIHHHI", x, counts.size, counts.size, 0xC0000, flag, second, number, len(data))
    return head + data + (listed.astype("<u2").tobytes() if flag > 1 else b"")


def spectrum_data(
    counts: np.ndarray[Any, Any], flags: Sequence[int] = (0, 1, 2), extra: int = 0, compressed: bool = False
) -> bytes:
    """The pixels of a detector; pixels without counts are left out, the others take the flags in turn."""
    height, width, _ = counts.shape
    out = bytearray(struct.pack("<II", height, width).ljust(0x1A0, b"\0"))
    number = 0
    for row in counts:
        filled = [x for x in range(width) if row[x].any()]
        out += struct.pack("<I", len(filled))
        for x in filled:
            flag = flags[number % len(flags)]
            small = flag != 1 or row[x].size <= 4096
            out += record(x, row[x], flag if small else 0, extra)
            number += 1
    return packed(bytes(out)) if compressed else bytes(out)


def packed(out: bytes) -> bytes:
    """A file in parts that are compressed each on its own."""
    parts = [zlib.compress(out[i : i + INFLATED]) for i in range(0, len(out), INFLATED)]
    made = b"AACS" + struct.pack("<III", INFLATED, 0, len(parts))
    made = made.ljust(0x80, b"\0")
    for part in parts:
        made += struct.pack("<IIII", len(part), INFLATED, 0, 0) + part
    return made


def header(shape: tuple[int, int, int], detectors: int) -> bytes:
    """The XML of a map: what RosettaSciIO reads of it."""
    height, width, channels = shape
    image = base64.b64encode(np.zeros((height, width), "u2").tobytes()).decode()
    layers = base64.b64encode(zlib.compress(b"<DetLayers></DetLayers>")).decode()
    spectra = "".join(
        f"""<SpectrumData{d}><ClassInstance Type="TRTSpectrum"><TRTHeaderedClass>
        <ClassInstance Type="TRTSpectrumHardwareHeader"><Amplification>1E4</Amplification>
        <ShapingTime>275000</ShapingTime><ZeroPeakPosition>96</ZeroPeakPosition></ClassInstance>
        <ClassInstance Type="TRTDetectorHeader"><Type>XFlash 5010</Type><DetectorThickness>0.45</DetectorThickness>
        <SiDeadLayerThickness>0.029</SiDeadLayerThickness><WindowType>slew AP3.3</WindowType>
        <DetLayers>{layers}</DetLayers></ClassInstance>
        <ClassInstance Type="TRTESMAHeader"><PrimaryEnergy>2E1</PrimaryEnergy><ElevationAngle>3.5E1</ElevationAngle>
        <AzimutAngle>4.5E1</AzimutAngle></ClassInstance></TRTHeaderedClass>
        <ClassInstance Type="TRTSpectrumHeader"><Date>13.7.2015</Date><Time>21:6:24</Time>
        <ChannelCount>{channels}</ChannelCount><CalibAbs>-4.7E-1</CalibAbs><CalibLin>1E-2</CalibLin>
        <SigmaAbs>8.7E-4</SigmaAbs><SigmaLin>4.1E-4</SigmaLin></ClassInstance>
        <Channels>{",".join("0" * channels)}</Channels></ClassInstance></SpectrumData{d}>"""
        for d in range(detectors)
    )
    factors = "".join(f"<ChannelFactor{d}>1</ChannelFactor{d}>" for d in range(detectors))
    plane = f"<Plane0><Description>SE</Description><Data>{image}</Data></Plane0>"
    return f"""<?xml version="1.0" encoding="WINDOWS-1252" standalone="yes"?>
    <TRTSpectrumDatabase><RTHeader/><ClassInstance Type="TRTSpectrumDatabase" Name="Map data"><Header>
    <Date>13.7.2015</Date>
    <Time>21:6:24</Time><FileVersion>1</FileVersion></Header>
    <ClassInstance Type="TRTSEMData"><HV>20</HV><WD>20</WD><Mag>100</Mag><DX>2</DX><DY>2</DY></ClassInstance>
    <ClassInstance Type="TRTSEMStageData"><State>7936</State></ClassInstance>
    <ClassInstance Type="TRTDSPConfiguration"><ImageWidth>{width}</ImageWidth><ImageHeight>{height}</ImageHeight>
    <PixelAverage>4</PixelAverage><LineAverage>2</LineAverage><SEBitCount>12</SEBitCount><ChannelCount>1</ChannelCount>
    <Channel0>1</Channel0><ChannelName0>SE</ChannelName0><TiltAngle>0</TiltAngle><PixelTime>1</PixelTime></ClassInstance>
    <ClassInstance Type="TRTImageData"><ItemSize>2</ItemSize><Width>{width}</Width><Height>{height}</Height>
    <PlaneCount>1</PlaneCount><Date>13.7.2015</Date><Time>21:6:24</Time>{plane}</ClassInstance>
    <LineCounter>{",".join("1" * height)}</LineCounter><ChCount>{channels}</ChCount>
    <DetectorCount>{detectors}</DetectorCount>{factors}{spectra}</ClassInstance></TRTSpectrumDatabase>""".encode(
        "cp1252"
    )


def write_bruker(path: Path, counts: Sequence[np.ndarray[Any, Any]], *, block: int = BLOCK, **options: Any) -> Path:
    """A file of these counts (y, x, channels), one array for each detector."""
    words = header(counts[0].shape, len(counts))
    files = [("HeaderData", packed(words) if options.get("compressed") else words)]
    files += [(f"SpectrumData{d}", spectrum_data(c, **options)) for d, c in enumerate(counts)]
    return write_container(path, files, block=block)


def write_container(path: Path, files: Sequence[tuple[str, bytes]], *, block: int = BLOCK) -> Path:
    """A container of these files in the folder EDSDatabase, in blocks of this size."""
    payload = block - 32
    blocks: list[bytes] = [b""]

    def chain(content: bytes, first: int) -> None:
        parts = [content[i : i + payload] for i in range(0, len(content), payload)] or [b""]
        for number, part in enumerate(parts):
            following = first + number + 1 if number + 1 < len(parts) else 0xFFFFFFFF
            blocks.append(struct.pack("<I", following).ljust(32, b"\0") + part.ljust(payload, b"\0"))

    entries = [(0xFFFFFFFF, 0, -1, 1, "EDSDatabase")]
    for name, content in files:
        count = -(-len(content) // payload)
        table = len(blocks)
        tables = max(1, -(-4 * count // payload))
        chain(struct.pack(f"<{count}I", *range(table + tables, table + tables + count)), table)
        for first in range(0, len(content), payload):
            chain(content[first : first + payload], len(blocks))
        entries.append((table, len(content), 0, 0, name))
    directory = len(blocks)
    per_block = payload // 512
    items = b""
    for number, (table, size, parent, folder, name) in enumerate(entries):
        item = struct.pack("<IQ", table, size).ljust(40, b"\0") + struct.pack("<i", parent)
        items += item.ljust(220, b"\0") + bytes([folder]).ljust(4, b"\0") + name.encode().ljust(288, b"\0")
        if number % per_block == per_block - 1:
            items = items.ljust(-(-len(items) // payload) * payload, b"\0")
    chain(items, directory)
    # Block 0 describes the container.
    first = struct.pack("<8sffI", b"AASFSSGN", 2.6, 2.6, block).ljust(40, b"\0")
    blocks[0] = (first + struct.pack("<III", directory, len(entries), len(blocks))).ljust(block, b"\0")
    path.write_bytes(b"AAMVHFSS".ljust(0x118, b"\0") + b"".join(blocks))
    return path
