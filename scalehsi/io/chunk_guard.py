"""Read the chunks of a Zarr store of any origin: bounded in size, from files alone, and with our errors.

Zarr's own pipeline decompresses whatever a chunk holds. This one knows how large a chunk may be, and refuses one that
would be larger before it takes the memory. `guarded` makes zarr use it for the arrays that are opened meanwhile; the
arrays keep it, also on workers.
"""

from __future__ import annotations

import asyncio
import bz2
import errno
import lzma
import math
import os
import stat
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

import zarr
from zarr.codecs import ShardingCodec
from zarr.codecs._v2 import V2Codec
from zarr.core.codec_pipeline import BatchedCodecPipeline
from zarr.registry import register_codec, register_pipeline

from scalehsi.chunks import MiB
from scalehsi.io.zstd_size import zstd_size
from scalehsi.schema import InputError

SLACK_BYTES: Final = 4096
FILTER_FACTOR: Final = 8
"""A filter may store a value in wider numbers, such as differences of bytes as float64."""
TEXT_BYTES: Final = 64 * MiB
"""The largest decompressed chunk of text, whose values have no fixed size."""


class GuardedPipeline(BatchedCodecPipeline):
    """Zarr's pipeline of codecs, for chunks of any origin."""

    async def read_batch(self, batch_info: Iterable[Any], out: Any, drop_axes: tuple[int, ...] = ()) -> Any:
        """As zarr's. A chunk that is damaged, too large or no file raises an `InputError`."""
        batch = list(batch_info)
        where = _place(batch[0][0]) if batch else ""
        try:
            for getter, spec, *_ in batch:
                _check_file(getter, None if self.supports_partial_decode else 2 * _most_bytes(spec, filters=True))
            return await super().read_batch(batch, out, drop_axes)
        except (InputError, MemoryError):
            raise
        # A decoder of another project, on bytes that may be anything, may raise anything.
        except Exception as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            reason = (str(error).splitlines() or [""])[0] or type(error).__name__
            raise InputError(
                f"a chunk of the data is damaged ({where}: {reason}); copy or convert the data again"
            ) from error

    async def decode_batch(self, chunk_bytes_and_specs: Iterable[tuple[Any, Any]]) -> Any:
        """As zarr's, but no chunk becomes larger than its array says."""
        pairs = list(chunk_bytes_and_specs)
        raw, specs = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        array_codec, filters = self.array_bytes_codec, bool(self.array_array_codecs)
        steps = [(str(codec.to_dict()["name"]).removeprefix("numcodecs."), codec) for codec in self.bytes_bytes_codecs]
        names = [str(array_codec.to_dict().get("name", ""))]
        if isinstance(array_codec, V2Codec):
            kept = [f.codec_id for f in array_codec.filters or ()]
            filters, names = bool(kept), kept[-1:] or [""]
            if array_codec.compressor is not None:
                steps = [(array_codec.compressor.codec_id, _OfVersion2(array_codec.compressor))]
                array_codec = replace(array_codec, compressor=None)
        limits = [_most_bytes(spec, filters=filters) for spec in specs]
        for name, codec in reversed(steps):
            raw = await _unpacked(name, codec, raw, specs, limits)
        for each, spec in zip(raw, specs, strict=True):
            if each is not None and names[0].startswith("vlen-"):
                _check_text(each, spec)
        rest = replace(self, array_bytes_codec=array_codec, bytes_bytes_codecs=())
        return await super(GuardedPipeline, rest).decode_batch(zip(raw, specs, strict=True))


class GuardedShards(ShardingCodec):
    """Zarr's shards, whose inner chunks are read with the guarded pipeline."""

    @property
    def codec_pipeline(self) -> GuardedPipeline:
        return GuardedPipeline.from_codecs(self.codecs)


@dataclass(frozen=True)
class _OfVersion2:
    """A compressor of Zarr v2 with the call of a codec of v3."""

    compressor: Any

    async def decode(self, pairs: Iterable[tuple[Any, Any]]) -> list[Any]:
        return [
            None
            if raw is None
            else spec.prototype.buffer.from_bytes(bytes(self.compressor.decode(raw.as_array_like())))
            for raw, spec in pairs
        ]


def guarded() -> Any:
    """A context in which zarr opens arrays with the guarded pipeline."""
    name = f"{GuardedPipeline.__module__}.{GuardedPipeline.__qualname__}"
    shards = f"{GuardedShards.__module__}.{GuardedShards.__qualname__}"
    return zarr.config.set({"codec_pipeline.path": name, "codecs.sharding_indexed": shards})


register_pipeline(GuardedPipeline)
register_codec("sharding_indexed", GuardedShards)


# Files ---------------------------------------------------------------------------------------------------------------


def _place(getter: Any) -> str:
    return str(getattr(getter, "path", "")) or "a chunk of a shard"


def _check_file(getter: Any, most: int | None) -> None:
    """Refuse what is no file, such as a FIFO or a link to a device, and a file of more bytes than ``most``."""
    root = getattr(getattr(getter, "store", None), "root", None)
    if root is None:
        return
    try:
        found = os.stat(os.path.join(root, getter.path))  # noqa: PTH116, PTH118 - once a chunk
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        found = None
    if found is None or not stat.S_ISREG(found.st_mode):
        raise InputError(f"{getter.path!r} of the store {str(root)!r} is no file; copy or write the store again")
    if most is not None and found.st_size > most:
        raise InputError(
            f"a chunk of the data is damaged ({getter.path}: {found.st_size} bytes, at most {most} are expected); "
            "copy or convert the data again"
        )


# Sizes ---------------------------------------------------------------------------------------------------------------


def _most_bytes(spec: Any, *, filters: bool) -> int:
    """The most bytes that a chunk of an array may have when it is decompressed."""
    dtype = spec.dtype.to_native_dtype()
    if dtype.kind in "OT":
        return TEXT_BYTES
    return math.prod(spec.shape) * dtype.itemsize * (FILTER_FACTOR if filters else 1) + SLACK_BYTES


async def _unpacked(name: str, codec: Any, raw: list[Any], specs: list[Any], limits: list[int]) -> list[Any]:
    """Decode chunks by one codec, each to at most its limit of bytes.

    Parameters
    ----------
    name : str
        Of the codec.
    codec
        Has the function ``decode`` of zarr's codecs.
    raw, specs, limits : list
        Bytes of each chunk or None, its specification, and its limit.
    """
    if name in _STREAMS:
        return [
            None
            if each is None
            else spec.prototype.buffer.from_bytes(await asyncio.to_thread(_stream, name, each, most))
            for each, spec, most in zip(raw, specs, limits, strict=True)
        ]
    for each, most in zip(raw, limits, strict=True):
        if each is not None and name in _SIZES:
            _refuse_larger(_SIZES[name](memoryview(each.as_array_like()).cast("B")), most)
    return list(await codec.decode(zip(raw, specs, strict=True)))


def _refuse_larger(size: int, most: int) -> None:
    if size > most:
        raise ValueError(f"it decompresses to {size} bytes, at most {most} are expected")


def _stream(name: str, raw: Any, most: int) -> bytes:
    """Decompress a stream of gzip, zlib, bz2 or xz, of one or more parts, to at most ``most`` bytes."""
    rest, parts, size = bytes(raw.as_array_like()), [], 0
    while rest:
        stream = _STREAMS[name]()
        parts.append(stream.decompress(rest, most + 1 - size))
        size += len(parts[-1])
        if size > most:
            raise ValueError(f"it decompresses to more than {most} bytes")
        if not stream.eof:
            raise ValueError("the compressed data are cut off")
        rest = stream.unused_data.lstrip(b"\0")
    return b"".join(parts)


def _check_text(raw: Any, spec: Any) -> None:
    """Refuse a chunk of text that says that it holds more texts than its array."""
    count = int.from_bytes(bytes(memoryview(raw.as_array_like()).cast("B")[:4]), "little")
    if count > math.prod(spec.shape):
        raise ValueError(f"it holds {count} texts, {math.prod(spec.shape)} are expected")


_STREAMS: Final[dict[str, Any]] = {
    "gzip": lambda: zlib.decompressobj(31),
    "zlib": zlib.decompressobj,
    "bz2": bz2.BZ2Decompressor,
    "lzma": lzma.LZMADecompressor,
}
_SIZES: Final[dict[str, Any]] = {
    "blosc": lambda raw: int.from_bytes(raw[4:8], "little"),
    "lz4": lambda raw: int.from_bytes(raw[:4], "little"),
    "zstd": zstd_size,
}
"""Bytes after decompression, from the head of a chunk."""
