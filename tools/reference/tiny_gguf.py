"""Writes the tiny models of testdata/models/ as F32 GGUF with the `gguf` Python package.

    python tools/reference/tiny_gguf.py [--models testdata/models] [--out testdata/models/tiny-gguf]

An independent writer: each file holds the same values as the safetensors directory that it is named after, so the golden
logits there are its golden logits too. What GGUF does differently is done here: the `llama` architecture stores wq and wk
permuted for adjacent-pair RoPE and its frequency scaling as the tensor rope_freqs.weight, `gemma3` stores its norms plus 1.
Only qwen2-tiny.gguf carries a tokenizer and a chat template.
"""

import argparse
import json
import math
from pathlib import Path

import gguf
import numpy as np
from safetensors.numpy import load_file

TENSOR_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
}
# One name, two meanings: Gemma 3 norms the attention's output and the MLP's input apart, the others only the latter.
LLAMA_NORMS = {"post_attention_layernorm": "ffn_norm"}
GEMMA_NORMS = {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
TOP_LEVEL = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
ARCHITECTURES = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gemma3_text": "gemma3"}


def gguf_name(name, norms):
    """model.layers.N.self_attn.q_proj.weight -> blk.N.attn_q.weight"""
    stem, _, kind = name.rpartition(".")
    if stem in TOP_LEVEL:
        return f"{TOP_LEVEL[stem]}.{kind}"
    _, _, layer, part = stem.split(".", 3)
    return f"blk.{layer}.{(TENSOR_NAMES | norms)[part]}.{kind}"


def interleave(w, n_heads):
    """Rows of each head from half-split order (i, i + head_dim / 2) to adjacent pairs (2i, 2i + 1)."""
    head_dim = w.shape[0] // n_heads
    return w.reshape(n_heads, 2, head_dim // 2, -1).swapaxes(1, 2).reshape(w.shape)


def rope_factors(config):
    """What the llama3 scaling divides each of the head_dim / 2 frequencies by."""
    scaling, head_dim = config["rope_scaling"], config["head_dim"]
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    factors = []
    for i in range(head_dim // 2):
        wavelength = 2 * math.pi * config["rope_theta"] ** (2 * i / head_dim)
        turns = scaling["original_max_position_embeddings"] / wavelength
        kept = min(max((turns - low) / (high - low), 0.0), 1.0)
        factors.append(1.0 / ((1.0 - kept) / scaling["factor"] + kept))
    return np.array(factors, np.float32)


def add_config(writer, config):
    head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    writer.add_name("tiny " + config["model_type"])
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_vocab_size(config["vocab_size"])
    if config["model_type"] == "llama":
        writer.add_rope_dimension_count(head_dim)
    if config["model_type"] == "gemma3_text":
        period = config["layer_types"].index("full_attention") + 1
        for i, kind in enumerate(config["layer_types"]):
            assert (kind == "full_attention") == ((i + 1) % period == 0)
        writer.add_sliding_window(config["sliding_window"])
        writer.add_sliding_window_pattern(period)


def converted(config, name, w):
    """The values of one tensor as GGUF wants them."""
    if config["model_type"] == "llama" and "q_proj" in name:
        return interleave(w, config["num_attention_heads"])
    if config["model_type"] == "llama" and "k_proj" in name:
        return interleave(w, config["num_key_value_heads"])
    if config["model_type"] == "gemma3_text" and "norm" in name:
        w = w + np.float32(1.0)
        if "q_norm" in name:
            # GGUF has no score scale: readers take 1 / sqrt(head_dim), so the difference goes into the norm of q.
            w = w * np.float32(math.sqrt(config["head_dim"] / config["query_pre_attn_scalar"]))
    return w


def add_tokenizer(writer, directory, config):
    path = directory / "tokenizer.json"
    if not path.exists():
        writer.add_tokenizer_model("none")
        return
    tokenizer = json.loads(path.read_text())
    tokens = {i: t for t, i in tokenizer["model"]["vocab"].items()}
    special = {t["id"]: t["content"] for t in tokenizer["added_tokens"]}
    names, types = [], []
    for i in range(config["vocab_size"]):
        if i in special:
            names.append(special[i])
            types.append(gguf.TokenType.CONTROL)
        elif i in tokens:
            names.append(tokens[i])
            types.append(gguf.TokenType.NORMAL)
        else:
            names.append(f"[PAD{i}]")
            types.append(gguf.TokenType.UNUSED)
    merges = [m if isinstance(m, str) else " ".join(m) for m in tokenizer["model"]["merges"]]
    settings = json.loads((directory / "tokenizer_config.json").read_text())
    ids = {content: i for i, content in special.items()}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(names)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(ids[settings["eos_token"]])
    writer.add_pad_token_id(ids[settings["pad_token"]])
    writer.add_add_bos_token(settings["add_bos_token"])
    writer.add_chat_template(settings["chat_template"])


def convert(directory, target):
    config = json.loads((directory / "config.json").read_text())
    weights = load_file(directory / "model.safetensors")
    writer = gguf.GGUFWriter(target, ARCHITECTURES[config["model_type"]])
    add_config(writer, config)
    add_tokenizer(writer, directory, config)
    norms = GEMMA_NORMS if config["model_type"] == "gemma3_text" else LLAMA_NORMS
    if (config.get("rope_scaling") or {}).get("rope_type") == "llama3":
        writer.add_tensor("rope_freqs.weight", rope_factors(config))
    for name, w in sorted(weights.items()):
        writer.add_tensor(gguf_name(name, norms), np.ascontiguousarray(converted(config, name, w), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    print(f"{target.name}: {len(weights)} tensors, {target.stat().st_size} bytes")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=Path("testdata/models"))
    parser.add_argument("--out", type=Path, default=Path("testdata/models/tiny-gguf"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for name in ("llama3-scaled-tiny", "qwen2-tiny", "qwen3-tiny", "gemma3-tiny"):
        convert(args.models / name, args.out / f"{name}.gguf")


if __name__ == "__main__":
    main()
