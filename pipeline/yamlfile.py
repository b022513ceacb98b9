"""YAML with places: the parsed data, and the line of every value, so that an error can say where.

Safe loading only. A key that is given twice is an error, where plain YAML would silently keep the last.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

_EXPONENT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")

Place = tuple[str | int, ...]


class GridError(ValueError):
    """A grid that cannot be used; `str()` is one line: where, what, and what would be right."""


@dataclass
class YamlFile:
    """Parsed data of one file and where each value stands."""

    path: str
    data: Any = None
    lines: dict[Place, int] = field(default_factory=dict)

    def error(self, place: Place, message: str) -> GridError:
        """A GridError that names file, line and field of the nearest known ancestor of `place`."""
        known = place
        while known and known not in self.lines:
            known = known[:-1]
        dotted = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in place).lstrip(".")
        where = f"{self.path}:{self.lines.get(known, 1)}"
        return GridError(f"{where}: {dotted + ': ' if dotted else ''}{message}")


def read_yaml(path: str | Path) -> YamlFile:
    """Read one YAML file. Raises GridError when it is missing, not YAML, or repeats a key."""
    result = YamlFile(str(path))
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
        raise GridError(f"{path}: {reason}; `dlq init` writes a grid to start from") from None
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        loader = yaml.SafeLoader("")
        result.data = _build(node, (), result, loader) if node is not None else {}
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise GridError(f"{path}:{line}: not valid YAML: {error.problem}") from None
    except GridError:
        raise
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # odd characters, dates, a list inside itself
        raise GridError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    return result


def _build(node: yaml.Node, place: Place, result: YamlFile, loader: yaml.SafeLoader) -> Any:
    result.lines[place] = node.start_mark.line + 1
    if isinstance(node, yaml.SequenceNode):
        return [_build(item, (*place, i), result, loader) for i, item in enumerate(node.value)]
    if not isinstance(node, yaml.MappingNode):
        value = loader.construct_object(node)
        # PyYAML follows YAML 1.1, where 1e-2 is a string; everybody means the number.
        plain = isinstance(value, str) and isinstance(node, yaml.ScalarNode) and node.style is None
        return float(value) if plain and _EXPONENT.fullmatch(value) else value
    mapping: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = str(loader.construct_object(key_node))
        if key in mapping:
            raise result.error((*place, key), "given twice")
        mapping[key] = _build(value_node, (*place, key), result, loader)
        result.lines[(*place, key)] = key_node.start_mark.line + 1
    return mapping
