"""Where a model's files are, what they hash to, and whether their tensors are those the config promises.

Torch-free: safetensors headers are plain JSON behind an 8-byte length, so a plan checks a checkpoint without
loading it. Only safetensors is read; pickled weights are refused. Does not protect against files that change
after they were hashed.
"""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from models.families import FAMILIES
from models.spec import ModelError, ModelSpec, read_spec

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
BUNDLED = "bundled"
_MAX_HEADER = 100_000_000  # bytes; the limit of the safetensors format


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
    if (folder / INDEX).exists():
        index = json.loads((folder / INDEX).read_text())
        paths = sorted({folder / name for name in index["weight_map"].values()})
    else:
        paths = [folder / SINGLE]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        pickled = any(folder.glob("*.bin")) or any(folder.glob("*.pt"))
        hint = "; pickled weights are not read, convert them to safetensors" if pickled else ""
        raise ModelError(f"{folder} lacks the weights {', '.join(missing)}{hint}")
    return paths


def header(path: Path) -> dict[str, tuple[int, ...]]:
    """Tensor names and shapes of one safetensors file, from its header alone."""
    try:
        with path.open("rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            if size > _MAX_HEADER:
                raise ValueError("header too long")
            entries = json.loads(file.read(size))
        return {k: tuple(v["shape"]) for k, v in entries.items() if k != "__metadata__"}
    except (OSError, struct.error, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path} is not a readable safetensors file: {error}") from None


def expected_shapes(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    """Every tensor the checkpoint must hold, by its key in the file."""
    family = FAMILIES[spec.family]
    shapes = {family.outside[name]: shape for name, shape in spec.outside_shapes().items()}
    for block in range(spec.layers):
        shapes |= {family.block_key(block, name): shape for name, shape in spec.block_shapes().items()}
    return shapes


def check_tensors(folder: Path, spec: ModelSpec) -> None:
    """Raise ModelError for the first tensor that is missing or has another shape than config.json says."""
    found = {key: shape for path in weight_files(folder) for key, shape in header(path).items()}
    for key, shape in expected_shapes(spec).items():
        if key not in found:
            raise ModelError(f"{folder} has no tensor {key}")
        if found[key] != shape:
            raise ModelError(f"{key} in {folder} is {list(found[key])}, config.json says {list(shape)}")


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
    if not tokenizer.is_file():
        raise ModelError(f"{folder} has no tokenizer.json")
    weights = file_hash(folder / "config.json", *weight_files(folder))
    return Model(name, str(folder), weights, file_hash(tokenizer), spec, dtype, device)
