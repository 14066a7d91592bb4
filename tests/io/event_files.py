"""Small event files of each vendor's format, written from a list of X-rays, for the tests and the benchmark."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

STREAM = "Data/SpectrumStream"
END = 65535


def velox_metadata(
    detectors: int, *, pixel: float = 2e-9, offset: float = -1000.0, step: float = 10.0, kind: str = "HAADF"
) -> np.ndarray[Any, Any]:
    """A column of metadata as Velox has them: JSON, filled up with zeros."""
    xray = {
        "DetectorType": "AnalyticalDetector",
        "Inserted": "true",
        "Enabled": "true",
        "ElevationAngle": "0.38",
        "AzimuthAngle": "0.78",
        "Dispersion": str(step),
        "OffsetEnergy": str(offset),
        "RealTime": "1.0",
        "LiveTime": "0.9",
        "BeginEnergy": "163",
    }
    words = {
        "Core": {"MetadataDefinitionVersion": "7.9"},
        "Instrument": {"InstrumentClass": "Talos"},
        "Acquisition": {"AcquisitionStartDatetime": {"DateTime": "1488794276"}},
        "Optics": {"AccelerationVoltage": "200000"},
        "Stage": {"AlphaTilt": "0.01"},
        "Scan": {"DwellTime": "5e-005", "FrameTime": "0.04"},
        "CustomProperties": {"StemMagnification": {"type": "double", "value": "40000"}},
        "Detectors": {f"Detector-{d}": {"DetectorName": f"SuperXG2{d + 1}", **xray} for d in range(detectors)},
        "BinaryResult": {
            "Detector": kind,
            "PixelSize": {"width": str(pixel), "height": str(pixel)},
            "PixelUnitX": "m",
            "PixelUnitY": "m",
            "Offset": {"x": "0", "y": "0"},
        },
    }
    column = np.zeros((60000, 1), "u1")
    text = json.dumps(words).encode()
    column[: len(text), 0] = np.frombuffer(text, "u1")
    return column


def write_velox(
    path: Path,
    shape: tuple[int, int],
    streams: Sequence[np.ndarray[Any, Any]],
    *,
    frames: int,
    channels: int = 4096,
    chunked_image: bool = True,
    encoding: str = "uint16",
) -> Path:
    """A Velox file of these streams of words, one for each detector, which it says to be of ``frames`` frames."""
    with h5py.File(path, "w") as file:
        text = h5py.string_dtype("ascii")
        file.create_dataset("Version", data=['{"version": "4", "format": "Velox"}'], dtype=text)
        image = file.create_group("Data/Image/a0")
        chunks = (*shape, 1) if chunked_image else None
        image.create_dataset("Data", data=np.ones((*shape, 1), "u2"), chunks=chunks)
        image.create_dataset("Metadata", data=velox_metadata(len(streams)))
        shown = file.create_group("Data/SpectrumImage/b0")
        shown.create_dataset("SpectrumImageSettings", data=[json.dumps({"endFramePosition": str(frames)})], dtype=text)
        shown.create_dataset("Data", data=np.zeros((10, 1), "u1"))
        shown.create_dataset("Metadata", data=velox_metadata(len(streams)))
        paths = []
        for number, words in enumerate(streams):
            stream = file.create_group(f"{STREAM}/c{number}")
            settings = {"bincount": str(channels), "StreamEncoding": encoding}
            stream.create_dataset("AcquisitionSettings", data=[json.dumps(settings)], dtype=text)
            stream.create_dataset("Data", data=np.asarray(words, "u2")[:, None], maxshape=(None, 1), chunks=(8192, 1))
            stream.create_dataset("Metadata", data=velox_metadata(len(streams), kind=f"SuperXG2{number + 1}"))
            paths.append(f"/{STREAM}/c{number}")
        operations = {
            "operations": [{"EDSInputOperation": f"/Operations/EDSInputOperation/d{n}"} for n in range(len(paths))]
        }
        operations["operations"].append({"StemInputOperation": "/Operations/StemInputOperation/e0"})
        file.create_dataset("Operations/Operations", data=[json.dumps(operations)], dtype=text)
        for number, name in enumerate(paths):
            words = json.dumps({"dataPath": name, "outputs": ""})
            file.create_dataset(f"Operations/EDSInputOperation/d{number}", data=[words], dtype=text)
        words = json.dumps({"dataPath": "/Data/Image/a0", "detector": "HAADF", "outputs": ""})
        file.create_dataset("Operations/StemInputOperation/e0", data=[words], dtype=text)
        features = {"features": [{"SIFeature": "/Features/SIFeature/f0"}]}
        file.create_dataset("Features/Features", data=[json.dumps(features)], dtype=text)
        feature = {
            "stemInputOperations": ["/Operations/StemInputOperation/e0"],
            "edsInputOperation": "/Operations/EDSInputOperation/d0",
        }
        file.create_dataset("Features/SIFeature/f0", data=[json.dumps(feature)], dtype=text)
        file.create_dataset(
            "Presentation/Displays/ImageDisplay/g0",
            data=[json.dumps({"display": {"id": "HAADF", "label": "HAADF"}, "dataPath": "/Data/Image/a0"})],
            dtype=text,
        )
    return path


def velox_words(counts: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The stream of counts (frames, y, x, channels), each X-ray in order of its channel."""
    flat = counts.reshape(-1, counts.shape[-1])
    parts = [np.append(np.repeat(np.arange(flat.shape[1]), pixel), END) for pixel in flat]
    return np.concatenate(parts).astype("u2")


# JEOL ----------------------------------------------------------------------------------------------------------------

_KINDS: dict[type, tuple[int, str]] = {int: (3, "<i"), float: (5, "<d"), np.int16: (2, "<h"), np.float32: (4, "<f")}


def _tags(tree: dict[str, Any]) -> bytes:
    """A tree of tags as JEOL writes it: each is opened by 1, and closed by -1 behind what is in it.

    A value is a dict of further tags, a number, a text, bytes of four short integers, or a text with further tags.
    """
    out = b""
    for name, value in tree.items():
        value, inside = value if isinstance(value, tuple) else (value, {})
        if isinstance(value, dict):
            kind, stored, inside = 0, b"", value
        elif isinstance(value, str):
            kind, stored = 12, value.encode() + b"\0"
        elif isinstance(value, bytes):
            kind, stored = 7, value
        else:
            kind, form = _KINDS[type(value)]
            stored = struct.pack(form, value)
        text = name.encode() + b"\0"
        out += struct.pack("<Bi", 1, len(text)) + text + struct.pack("<ii", kind, len(stored)) + stored
        out += _tags(inside) + b"\xff"
    return out


def jeol_words(counts: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The stream of counts (frames, y, x, channels), with words in between that are no X-rays."""
    frames, rows, columns, _ = counts.shape
    step = 4096 // max(rows, columns)
    out: list[int] = []
    for frame in range(frames):
        for y in range(rows):
            out.append(0x9000 | y * step)
            for x in range(columns):
                pixel = np.repeat(np.arange(counts.shape[-1]), counts[frame, y, x])
                xrays = [0xB000 | int(channel) for channel in pixel]
                out += [0x8000 | x * step, 0x6000, 0xA123, *xrays] if xrays else [0x7000]
    return np.array(out, "<u2")


def write_jeol(
    path: Path, shape: tuple[int, int], words: np.ndarray[Any, Any], *, sweep: int = 1, length: int | None = None
) -> Path:
    """A JEOL file of this stream, which says that it has ``length`` bytes."""
    times = {"LiveTime": 10.0, "RealTime": 11.0, "DwellTime(msec)": 0.1}
    doc = {**times, "Sweep": np.int16(sweep), "CoefA": 0.01, "CoefB": -0.5}
    area = struct.pack("<4h", 0, 0, shape[1] - 1, shape[0] - 1)
    measured = {"Tpl": "T1", "Pixels": f"{shape[1]}x{shape[0]}", "Aim Area": area}
    beam = {"AccKV": np.float32(200), "AccNA": np.float32(2.5), "Mag": 40000, "WD": np.float32(6)}
    angles = {name: np.float32(22) for name in ("ElevAng", "DirAng", "MnKaRES", "ScanSize")}
    microscope = ("SEM", {"SEM": "JEM-2100F", "DetT": "EX24075JGT", **angles})
    detector = ("EDXRF", {"NumCH": 4096, "CH Res": 0.01, "Tpl": {"T1": {"DigZ": np.int16(98), "DigL": np.int16(15)}}})
    tree = {
        "PTTD Cond": {"Meas Cond": {"CONDPAGE0": ("C.R", {})}},
        "PTTD Param": {"Params": {"PARAMPAGE1": detector, "PARAMPAGE0": microscope}},
        "PTTD Data": {"AnalyzableMap MeasData": {"Doc": doc, "Meas Cond": measured, "MeasCond": beam}},
        "EDS Data": {"AnalyzableMap MeasData": {"Doc": doc, "Meas Cond": measured}},
    }
    tags = bytes(12) + _tags(tree)
    first = 4096
    head = struct.pack("<9I", 304, 0, 0, 131072, 1, 305, len(tags), first, 2 * words.size if length is None else length)
    path.write_bytes((head.ljust(305, b"\0") + tags).ljust(first, b"\0") + words.astype("<u2").tobytes())
    return path
