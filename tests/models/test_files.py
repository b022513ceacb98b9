"""Bad checkpoints are refused before anything runs, each with one line that says why."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models

from models.families import DREAM, FAMILIES
from models.families import LLADA as FAMILY
from models.files import check_tensors, expected_shapes, locate, read_model, weight_files
from models.spec import ModelError, ModelSpec, read_spec

CONFIG: dict[str, Any] = {
    "model_type": "llada", "d_model": 32, "n_layers": 2, "n_heads": 2, "mlp_hidden_size": 64, "vocab_size": 20,
    "mask_token_id": 19, "eos_token_id": 18, "max_sequence_length": 32,
}  # fmt: skip
DREAM_CONFIG: dict[str, Any] = {
    "model_type": "Dream", "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4,
    "num_key_value_heads": 2, "intermediate_size": 48, "vocab_size": 20, "rms_norm_eps": 1e-6, "rope_theta": 1e6,
    "mask_token_id": 19, "eos_token_id": 18, "max_position_embeddings": 64,
}  # fmt: skip


def write(folder: Path, config: dict[str, Any]) -> Path:
    spec = ModelSpec(**next(f for f in FAMILIES.values() if config["model_type"] in f.model_types).read(config))
    save_file({k: torch.randn(s) for k, s in expected_shapes(spec).items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    Tokenizer(models.WordLevel({f"w{i}": i for i in range(20)}, unk_token="w0")).save(
        str(folder / "tokenizer.json")
    )
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path, CONFIG)


@pytest.fixture
def dream(tmp_path: Path) -> Path:
    return write(tmp_path, DREAM_CONFIG)


def rewrite(folder: Path, **fields: Any) -> None:
    """Change fields of the config that lies there."""
    path = folder / "config.json"
    base = DREAM_CONFIG if '"Dream"' in path.read_text() else CONFIG
    path.write_text(json.dumps({**base, **fields}))


def add_tensors(folder: Path, *names: str) -> None:
    state = load_file(folder / "model.safetensors")
    save_file({**state, **{name: torch.ones(4) for name in names}}, folder / "model.safetensors")


def refusal(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        read_model(str(folder))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_head_is_not_a_down_projection() -> None:
    keys = expected_shapes(ModelSpec(**FAMILY.spec_fields(CONFIG)))
    assert keys["model.transformer.ff_out.weight"] == (20, 32)
    assert keys["model.transformer.blocks.1.ff_out.weight"] == (32, 64)
    assert len(keys) == 3 + 2 * 9


def test_identity_follows_content_not_place(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    copy = tmp_path_factory.mktemp("copy")
    for file in folder.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    first, second = read_model(str(folder)), read_model(str(copy))
    assert first.identity() == second.identity()
    state = load_file(folder / "model.safetensors")
    state["model.transformer.ln_f.weight"][0] += 1
    save_file(state, copy / "model.safetensors")
    assert read_model(str(copy)).identity() != first.identity()


def test_sharded_checkpoints_are_read_through_their_index(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    names = sorted(state)
    for part, keys in (("a.safetensors", names[:5]), ("b.safetensors", names[5:])):
        save_file({key: state[key] for key in keys}, folder / part)
    weight_map = {key: "a.safetensors" if key in names[:5] else "b.safetensors" for key in names}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (folder / "model.safetensors").unlink()
    assert [path.name for path in weight_files(folder)] == ["a.safetensors", "b.safetensors"]
    check_tensors(folder, read_spec(folder))


def test_refusals_name_the_reason(folder: Path) -> None:
    rewrite(folder, mask_token_id=None)
    assert "mask_token_id" in refusal(folder)
    rewrite(folder, mask_token_id=20)
    assert "outside the vocabulary" in refusal(folder)
    rewrite(folder, model_type="llama")
    assert "'llama' is not a masked-diffusion family" in refusal(folder)
    rewrite(folder, n_layers=3)
    assert "has no tensor model.transformer.blocks.2" in refusal(folder)
    rewrite(folder, mlp_hidden_size=65)
    assert "config.json says" in refusal(folder)
    (folder / "config.json").write_text("{")
    assert "cannot be read as JSON" in refusal(folder)


def test_broken_or_pickled_weights_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"\x00" * 4)
    assert "not a readable safetensors file" in refusal(folder)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04")
    assert "pickled weights are not read" in refusal(folder)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"n_heads": "4"}, "n_heads must be a whole number of 1 or more, got '4'"),
        ({"n_heads": 0}, "n_heads must be a whole number of 1 or more, got 0"),
        ({"n_heads": True}, "n_heads must be a whole number of 1 or more, got True"),
        ({"n_heads": 5}, "d_model 32 is not a multiple of n_heads 5"),
        ({"n_kv_heads": 0}, "n_kv_heads must be"),
        ({"d_model": None}, "d_model must be a whole number of 1 or more, got None"),
        ({"n_layers": 2.0}, "n_layers must be"),
        ({"n_layers": 10**12}, "has no tensor model.transformer.blocks.999999999999.attn_norm.weight"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps must be a finite number above 0"),
        ({"rope_theta": "10000"}, "rope_theta must be a finite number above 0"),
        ({"weight_tying": "false"}, "weight_tying must be true or false"),
        ({"mask_token_id": "19"}, "mask_token_id must be one token id, got '19'"),
        ({"mask_token_id": -1}, "mask_token_id -1 lies outside the vocabulary of 20"),
        ({"eos_token_id": None}, "eos_token_id must be one token id, got None"),
        ({"eos_token_id": [18, 17]}, r"eos_token_id must be one token id, got [18, 17]"),
        ({"eos_token_id": 20}, "eos_token_id 20 lies outside the vocabulary of 20"),
        ({"pad_token_id": 500}, "pad_token_id 500 lies outside"),
        ({"pad_token_id": "18"}, "pad_token_id must be one token id"),
    ],
)
def test_wrong_values_are_named(folder: Path, fields: dict[str, Any], message: str) -> None:
    rewrite(folder, **fields)
    assert message in refusal(folder)


def test_missing_fields_are_named(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({k: v for k, v in CONFIG.items() if k != "d_model"}))
    assert "lacks the field 'd_model' of llada" in refusal(folder)


def test_no_padding_token_means_the_end_token(folder: Path) -> None:
    rewrite(folder, pad_token_id=None)
    assert read_spec(folder).pad_id == 18
    rewrite(folder, pad_token_id=0)
    assert read_spec(folder).pad_id == 0


def test_first_tokens_are_checked_too(dream: Path) -> None:
    assert read_spec(dream).bos_id is None
    rewrite(dream, bos_token_id=0)
    assert read_spec(dream).bos_id == 0
    for value, message in ((20, "bos_token_id 20 lies outside"), ([1], "bos_token_id must be one token id")):
        rewrite(dream, bos_token_id=value)
        assert message in refusal(dream)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("activation_type", "swiglu"),
        ("alibi", True),
        ("attention_layer_norm", True),
        ("scale_logits", True),
        ("input_emb_norm", True),
        ("include_bias", True),
        ("layer_norm_type", "default"),
        ("layer_norm_with_affine", False),
        ("block_type", "sequential"),
        ("rope", False),
        ("multi_query_attention", True),
        ("clip_qkv", 8.0),
        ("quantization_config", {"bits": 4}),
    ],
)
def test_llada_variants_that_compute_something_else_are_refused(folder: Path, field: str, value: Any) -> None:
    rewrite(folder, **{field: value})
    assert f"{field} is {value!r}, dlq computes llada with" in refusal(folder)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hidden_act", "gelu"),
        ("use_sliding_window", True),
        ("rope_scaling", {"type": "yarn", "factor": 4.0}),
        ("rope_parameters", {"rope_type": "yarn", "rope_theta": 1e6}),
        ("rope_parameters", {"partial_rotary_factor": 0.5}),
    ],
)
def test_dream_variants_that_compute_something_else_are_refused(dream: Path, field: str, value: Any) -> None:
    rewrite(dream, **{field: value})
    assert field in refusal(dream) and "dlq computes dream with" in refusal(dream)


def test_configs_as_published_are_accepted(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The values of the fields above in LLaDA-8B and Dream-7B."""
    rewrite(
        folder, activation_type="silu", alibi=False, attention_layer_norm=False, scale_logits=False, rope=True,
        input_emb_norm=False, include_bias=False, include_qkv_bias=False, layer_norm_type="rms", n_kv_heads=2,
        block_type="llama", multi_query_attention=None, bias_for_layer_norm=False, layer_norm_with_affine=True,
        embedding_size=20, weight_tying=False, rms_norm_eps=1e-5, rope_theta=500000.0,
    )  # fmt: skip
    assert read_model(str(folder)).spec.rope_theta == 500000
    other = write(tmp_path_factory.mktemp("dream"), DREAM_CONFIG)
    for rope in (
        {"rope_theta": 1e6, "rope_scaling": None},
        {"rope_theta": None, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}},
    ):
        rewrite(other, hidden_act="silu", use_sliding_window=False, use_mrope=False, **rope)
        assert read_model(str(other)).spec.rope_theta == 1e6
    rewrite(other, rope_theta=None, rope_parameters=[1])
    assert "rope_parameters must be an object" in refusal(other)


def test_tensors_that_would_be_ignored_are_refused(folder: Path) -> None:
    add_tensors(folder, "model.transformer.blocks.0.rotary_emb.inv_freq")
    check_tensors(folder, read_spec(folder))
    add_tensors(folder, "model.transformer.blocks.1.attn_out.bias", "model.transformer.wpe.weight")
    assert "model.transformer.blocks.1.attn_out.bias, which dlq's llada does not compute with" in refusal(folder)


def test_blocks_beyond_the_config_are_refused(folder: Path) -> None:
    rewrite(folder, n_layers=1)
    assert "holds model.transformer.blocks.1." in refusal(folder)


def test_a_tied_head_may_be_stored_twice(dream: Path) -> None:
    rewrite(dream, tie_word_embeddings=True)
    assert DREAM.outside["head.weight"] in load_file(dream / "model.safetensors")
    assert read_model(str(dream)).spec.tied


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "{}", '{"weight_map": 3}', '{"weight_map": {"a": 1}}', '{"weight_map": {"a": []}}'],
)
def test_a_broken_index_is_one_line(folder: Path, text: str) -> None:
    (folder / "model.safetensors.index.json").write_text(text)
    assert "model.safetensors.index.json" in refusal(folder)


def test_an_index_stays_in_its_folder(folder: Path) -> None:
    text = json.dumps({"weight_map": {"a": "../model.safetensors"}})
    (folder / "model.safetensors.index.json").write_text(text)
    assert "names '../model.safetensors', which is not a file beside it" in refusal(folder)


@pytest.mark.parametrize("cut", [1, 1000, -1])
def test_weights_of_another_size_than_their_header_says_are_refused(folder: Path, cut: int) -> None:
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut] if cut > 0 else whole + b"\0")
    message = f"it has {len(whole) - cut} bytes, its header promises {len(whole)}"
    assert message in refusal(folder)


@pytest.mark.parametrize(
    "entries",
    [
        [],
        {"a": 1},
        {"a": {"dtype": "F32", "shape": [2]}},
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": "2", "data_offsets": [0, 8]}},
        {"a": {"dtype": "I8", "shape": [8], "data_offsets": [0, 8]}},
    ],
)
def test_a_broken_header_is_one_line(folder: Path, entries: Any) -> None:
    text = json.dumps(entries).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + b"\0" * 8)
    assert "not a readable safetensors file" in refusal(folder)


@pytest.mark.parametrize("text", ["", "{}", "[]", "garbage", '{"model": 3}', '{"model": {"type": "No"}}'])
def test_a_broken_tokenizer_is_one_line(folder: Path, text: str) -> None:
    (folder / "tokenizer.json").write_text(text)
    assert "tokenizer.json cannot be read as a tokenizer" in refusal(folder)


def test_the_tokenizer_of_a_larger_model_is_refused(folder: Path) -> None:
    words = {f"w{i}": i for i in range(21)}
    Tokenizer(models.WordLevel(words, unk_token="w0")).save(str(folder / "tokenizer.json"))
    assert "gives token ids up to 20, the model's vocabulary is 20" in refusal(folder)
    (folder / "tokenizer.json").unlink()
    assert "has no tokenizer.json" in refusal(folder)


def test_unknown_names_are_explained() -> None:
    with pytest.raises(ModelError, match="give 'bundled', a checkpoint folder, or a hub name"):
        locate("no-such-model")
