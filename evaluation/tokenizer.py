"""Text to token ids and back, straight on tokenizer.json: no transformers import, which costs seconds per worker.

No special tokens are added here. Does not protect against a tokenizer that is not the model's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer as _Tokenizer

from evaluation.spec import TaskError


class Tokenizer:
    """The fast tokenizer of a checkpoint folder. Raises TaskError when tokenizer.json is missing or unreadable."""

    def __init__(self, folder: str | Path) -> None:
        path = Path(folder) / "tokenizer.json"
        if not path.is_file():
            raise TaskError(f"{folder} has no tokenizer.json")
        try:
            self._inner = _Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception for anything wrong with the file
            raise TaskError(f"{path} cannot be read: {error}") from None
        self._inner.no_truncation()
        self._inner.no_padding()

    def encode(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """Token ids of each text."""
        return [tuple(e.ids) for e in self._inner.encode_batch(list(texts), add_special_tokens=False)]

    def encode_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        """(context, continuation) -> their ids, by the rule of lm-eval and the official LLaDA evaluator.

        Trailing spaces of the context go to the continuation; both together are tokenised and cut at the length
        of the context's own ids, so that a continuation keeps the tokens it has in running text.
        """
        moved = [(c.rstrip(), c[len(c.rstrip()) :] + t) for c, t in pairs]
        contexts = self.encode([context for context, _ in moved])
        whole = self.encode([context + continuation for context, continuation in moved])
        return [(c, w[len(c) :]) for c, w in zip(contexts, whole, strict=True)]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids, special tokens dropped."""
        return str(self._inner.decode(list(ids), skip_special_tokens=True))
