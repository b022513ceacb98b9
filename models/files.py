"""Where a model's files are, what they hash to, and whether their tensors are those the config promises.

Torch-free: safetensors headers are plain JSON behind an 8-byte length, so a plan checks a checkpoint without
loading it. Only safetensors is read; pickled weights are refused. Does not protect against files that change
after they were hashed.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from models.families import FAMILIES
from models.spec import ModelError, ModelSpec, read_spec

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
BUNDLED = "bundled"
_MAX_HEADER = 100_000_000  # bytes; the limit of the safetensors format
_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}


@dataclass(frozen=True)
class Model:
    """A checkpoint as a sweep sees it. `folder` says where it lies and is never part of an identity."""

    name: str
    folder: str
    weights: str
    tokenizer: str
    spec: ModelSpec
    dtype: str = "float32"
    device: str = "cpu"

    def identity(self) -> dict[str, str]:
        """What decides the numbers: content of the weights, dtype and kind of device."""
        return {"weights": self.weights, "dtype": self.dtype, "device": self.device}


def locate(name: str) -> Path:
    """Folder of a model given as 'bundled', a checkpoint folder, or a hub name 'owner/name'.

    A hub name is looked up in the local cache first and downloaded (safetensors and JSON only) if need be.
    Raises ModelError when nothing answers to the name.
    """
    if name == BUNDLED:
        return Path(str(files("models") / "bundled" / "checkpoint"))
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder.resolve()
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise ModelError(f"no model {name!r}: give 'bundled', a checkpoint folder, or a hub name owner/name")
    return _from_hub(name)


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download

    patterns = ["*.safetensors", "*.json", "*.txt"]
    try:
        return Path(snapshot_download(name, allow_patterns=patterns, local_files_only=True))
    except (OSError, ValueError):
        pass  # not in the cache yet
    try:
        return Path(snapshot_download(name, allow_patterns=patterns))
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(f"no folder {name!r} here, and the hub does not give it: {reason}") from None


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint in name order; ModelError when one is missing."""
    names = _indexed(folder / INDEX) if (folder / INDEX).exists() else {SINGLE}
    paths = sorted(folder / name for name in names)
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        pickled = any(folder.glob("*.bin")) or any(folder.glob("*.pt"))
        hint = "; pickled weights are not read, convert them to safetensors" if pickled else ""
        raise ModelError(f"{folder} lacks the weights {', '.join(missing)}{hint}")
    return paths


def _indexed(path: Path) -> set[str]:
    try:
        names = set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path} has no readable weight_map: {error}") from None
    foreign = [name for name in names if not isinstance(name, str) or Path(name).name != name]
    if foreign:
        raise ModelError(f"{path} names {foreign[0]!r}, which is not a file beside it")
    return names


def header(path: Path) -> dict[str, tuple[int, ...]]:
    """Tensor names and shapes of one safetensors file, from its header alone.

    Raises ModelError for a file that is not safetensors, is cut short, or holds anything but floating point.
    """
    try:
        with path.open("rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            if size > _MAX_HEADER:
                raise ValueError("header too long")
            entries = json.loads(file.read(size))
        entries.pop("__metadata__", None)
        shapes = {key: _shape(key, entry) for key, entry in entries.items()}
        end = 8 + size + max((entry["data_offsets"][1] for entry in entries.values()), default=0)
        if path.stat().st_size != end:
            raise ValueError(f"it has {path.stat().st_size} bytes, its header promises {end}")
    except (OSError, struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path} is not a readable safetensors file: {error}") from None
    return shapes


def _shape(key: str, entry: Mapping[str, Any]) -> tuple[int, ...]:
    """Shape of a tensor by its header entry; ValueError when its bytes are not that many floats."""
    if entry["dtype"] not in _BYTES:
        raise ValueError(f"{key} is {entry['dtype']}, not floating point of 16 bits or more")
    shape, (begin, end) = tuple(entry["shape"]), entry["data_offsets"]
    if end - begin != math.prod(shape) * _BYTES[entry["dtype"]]:
        raise ValueError(f"{key} takes {end - begin} bytes, its shape is {list(shape)}")
    return shape


def expected_shapes(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    """Every tensor the checkpoint must hold, by its key in the file."""
    family = FAMILIES[spec.family]
    shapes = {family.outside[name]: shape for name, shape in spec.outside_shapes().items()}
    for block in range(spec.layers):
        shapes |= {family.block_key(block, name): shape for name, shape in spec.block_shapes().items()}
    return shapes


def check_tensors(folder: Path, spec: ModelSpec) -> None:
    """Raise ModelError for the first tensor that is missing, unknown, or of another shape than config.json says.

    A tensor that the forward pass would ignore, such as a bias, would make it another model than the file's.
    """
    found = {key: shape for path in weight_files(folder) for key, shape in header(path).items()}
    family = FAMILIES[spec.family]
    last = family.block_key(spec.layers - 1, "input_norm.weight")
    if last not in found:  # before a table of all blocks is made: `layers` may be any number
        raise ModelError(f"{folder} has no tensor {last}")
    expected = expected_shapes(spec)
    for key, shape in expected.items():
        if key not in found:
            raise ModelError(f"{folder} has no tensor {key}")
        if found[key] != shape:
            raise ModelError(f"{key} in {folder} is {list(found[key])}, config.json says {list(shape)}")
    # Rotary frequencies follow from the config; a tied head is the embedding once more.
    known = {*expected, family.outside["head.weight"]}
    unknown = sorted(key for key in found if key not in known and not key.endswith(".rotary_emb.inv_freq"))
    if unknown:
        raise ModelError(f"{folder} holds {unknown[0]}, which dlq's {spec.family} does not compute with")


def check_tokenizer(path: Path, spec: ModelSpec) -> None:
    """Raise ModelError when tokenizer.json cannot be read or gives ids that the model has no embedding for."""
    from tokenizers import Tokenizer

    if not path.is_file():
        raise ModelError(f"{path.parent} has no tokenizer.json")
    try:
        ids = Tokenizer.from_file(str(path)).get_vocab(with_added_tokens=True).values()
    except Exception as error:  # the library raises bare Exception for anything wrong with the file
        raise ModelError(f"{path} cannot be read as a tokenizer: {' '.join(str(error).split())}") from None
    if max(ids, default=0) >= spec.vocab_size:
        raise ModelError(f"{path} gives token ids up to {max(ids)}, the model's vocabulary is {spec.vocab_size}")


def file_hash(*paths: Path) -> str:
    """SHA-256 over the contents of the given files, in the given order."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def read_model(name: str, dtype: str = "float32", device: str = "cpu") -> Model:
    """Find, check and hash a model. Raises ModelError, one line, for anything that would fail later."""
    folder = locate(name)
    spec = read_spec(folder)
    check_tensors(folder, spec)
    tokenizer = folder / "tokenizer.json"
    check_tokenizer(tokenizer, spec)
    weights = file_hash(folder / "config.json", *weight_files(folder))
    return Model(name, str(folder), weights, file_hash(tokenizer), spec, dtype, device)
