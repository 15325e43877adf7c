#!/usr/bin/env python3
"""Write GGUF models of a true shape with random weights, for the peers to quantize and run.

    python3 models.py OUT.gguf --shape bitnet-2b --type f16 [--ternary] [--arch bitnet]

Speed does not depend on the values, but ternary formats want ternary values: --ternary gives -1, 0 and 1 times one
scale. Needs the packages gguf and numpy. Weights are drawn from a pool block by block, so a 2B model takes seconds.
"""

import argparse

import gguf
import numpy as np

# dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size, rope_theta
SHAPES = {
    "bitnet-2b": (2560, 6912, 30, 20, 5, 128256, 500000.0),
    "llama-1b": (2048, 8192, 16, 32, 8, 128256, 500000.0),
    "stories110m": (768, 2048, 12, 12, 12, 32000, 10000.0),
    "smollm-135m": (576, 1536, 30, 9, 3, 49152, 100000.0),
}
POOL_BLOCKS = 4096
BLOCK = 64


class Weights:
    """Random matrices [rows, cols], a copy of randomly chosen blocks of a pool."""

    def __init__(self, dtype, ternary):
        self.random = np.random.default_rng(1)
        self.dtype = dtype
        normal = self.random.standard_normal((POOL_BLOCKS, BLOCK))
        trits = self.random.integers(-1, 2, (POOL_BLOCKS, BLOCK))
        self.pool = {"normal": normal, "ternary": trits}
        self.layers = "ternary" if ternary else "normal"

    def matrix(self, rows, cols, kind):
        pool = (self.pool[kind] / np.sqrt(cols)).astype(self.dtype)
        assert rows * cols % BLOCK == 0
        return pool[self.random.integers(0, POOL_BLOCKS, rows * cols // BLOCK)].reshape(rows, cols)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out")
    parser.add_argument("--shape", choices=SHAPES, required=True)
    parser.add_argument("--type", choices=["f16", "f32"], default="f16")
    parser.add_argument("--ternary", action="store_true", help="ternary values in the layers")
    parser.add_argument("--arch", help="bitnet has sub-norms; by default bitnet for bitnet-2b, else llama")
    args = parser.parse_args()
    dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size, theta = SHAPES[args.shape]
    arch = args.arch or ("bitnet" if args.shape == "bitnet-2b" else "llama")
    head_dim = dim // n_heads

    writer = gguf.GGUFWriter(args.out, arch)
    writer.add_name(args.shape)
    writer.add_context_length(16384)
    writer.add_embedding_length(dim)
    writer.add_block_count(n_layers)
    writer.add_feed_forward_length(hidden_dim)
    writer.add_head_count(n_heads)
    writer.add_head_count_kv(n_kv_heads)
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(theta)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(vocab_size)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16 if args.type == "f16" else gguf.LlamaFileType.ALL_F32)
    # A vocabulary that every reader takes: SentencePiece, the 256 bytes, and made-up words.
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    kinds = [gguf.TokenType.UNKNOWN, gguf.TokenType.CONTROL, gguf.TokenType.CONTROL] + [gguf.TokenType.BYTE] * 256
    words = vocab_size - len(tokens)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens + [f"w{i}" for i in range(words)])
    writer.add_token_scores([0.0] * len(tokens) + [-1.0 - i for i in range(words)])
    writer.add_token_types(kinds + [gguf.TokenType.NORMAL] * words)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)

    weights = Weights(np.float16 if args.type == "f16" else np.float32, args.ternary)
    ones = lambda n: np.ones(n, dtype=np.float32)
    writer.add_tensor("token_embd.weight", weights.matrix(vocab_size, dim, "normal"))
    for layer in range(n_layers):
        for name, rows, cols in [
            ("attn_q", dim, dim),
            ("attn_k", n_kv_heads * head_dim, dim),
            ("attn_v", n_kv_heads * head_dim, dim),
            ("attn_output", dim, dim),
            ("ffn_gate", hidden_dim, dim),
            ("ffn_up", hidden_dim, dim),
            ("ffn_down", dim, hidden_dim),
        ]:
            writer.add_tensor(f"blk.{layer}.{name}.weight", weights.matrix(rows, cols, weights.layers))
        norms = [("attn_norm", dim), ("ffn_norm", dim)]
        if arch.startswith("bitnet"):
            norms += [("attn_sub_norm", dim), ("ffn_sub_norm", hidden_dim)]
        for name, length in norms:
            writer.add_tensor(f"blk.{layer}.{name}.weight", ones(length))
    writer.add_tensor("output_norm.weight", ones(dim))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
