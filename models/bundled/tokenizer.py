"""The bundled model's tokenizer: one token per space-separated word, special tokens named as in LLaDA.

A text and its continuation encode to the same ids together or apart, as long as a space stands between them.
"""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

from models.bundled.corpus import CONTEXT
from models.bundled.vocabulary import BOS, EOS, IDS, MASK, SPECIAL, UNKNOWN


def write_tokenizer(folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json, readable by transformers' AutoTokenizer."""
    tokenizer = Tokenizer(models.WordLevel(IDS, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens([AddedToken(word, special=True, normalized=False) for word in SPECIAL])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": EOS,
        "pad_token": EOS,
        "mask_token": MASK,
        "unk_token": UNKNOWN,
        "model_max_length": CONTEXT,
        "clean_up_tokenization_spaces": False,
        "add_bos_token": False,
        "add_eos_token": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
