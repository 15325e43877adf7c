"""Makes the tiny random models of testdata/models/ and their golden outputs with Hugging Face transformers.

    python tools/reference/tiny_models.py [--out testdata/models]

The outputs are those of transformers' own modelling code in f32 on one CPU thread, with its "eager" attention. `config.json`
is written in the style of the published repositories (rope_theta, rope_scaling, torch_dtype); `config-v5.json` is what
transformers 5 writes itself (rope_parameters, dtype). Both must give the same logits, or the script stops.

A golden output proves a feature only if it moves when the feature is off, so every model lists its "ablations": the
script switches each feature off and stops unless the logits change by more than MIN_EFFECT.
"""

import argparse
import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

os.environ["TORCHDYNAMO_DISABLE"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

MIN_EFFECT = 0.05  # an ablated feature must change some logit by at least this
MIN_MARGIN = 0.05  # greedy steps keep this distance to the second best, so that rounding cannot change them
GREEDY_TOKENS = 16


@dataclass
class Recipe:
    """One model: its config in published style, its weights' seed and what to switch off to show that it matters."""

    name: str
    seed: int
    n_tokens: int
    config: dict
    norm_offset: float = 0.0  # what the architecture itself adds to a norm's stored weight (1 for Gemma)
    ablations: dict = field(default_factory=dict)  # name -> f(config, weights), changing both in place


def zero(part):
    """An ablation: zeroes every tensor whose name contains `part`."""

    def apply(_config, weights):
        hits = [w for name, w in weights.items() if part in name]
        assert hits, part
        for w in hits:
            w.zero_()

    return apply


def flatten(part, value):
    """An ablation: sets every tensor whose name contains `part` to one value."""

    def apply(_config, weights):
        hits = [w for name, w in weights.items() if part in name]
        assert hits, part
        for w in hits:
            w.fill_(value)

    return apply


def setting(**changes):
    """An ablation: replaces fields of the config; None removes a field."""

    def apply(config, _weights):
        for key, value in changes.items():
            config.pop(key)
            if value is not None:
                config[key] = value

    return apply


RECIPES = [
    # Qwen2.5-0.5B in small: q/k/v biases, tied head, a vocabulary padded beyond the tokenizer's 300 tokens.
    Recipe(
        name="qwen2-tiny",
        seed=21,
        n_tokens=24,
        config=dict(
            architectures=["Qwen2ForCausalLM"],
            model_type="qwen2",
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            vocab_size=304,
            max_position_embeddings=256,
            rms_norm_eps=1e-6,
            rope_theta=1000000.0,
            tie_word_embeddings=True,
            hidden_act="silu",
            attention_dropout=0.0,
            use_sliding_window=False,
            sliding_window=256,
            max_window_layers=2,
            bos_token_id=297,
            eos_token_id=299,
            initializer_range=0.02,
            use_cache=True,
            torch_dtype="float32",
        ),
        ablations={
            "q bias": zero("q_proj.bias"),
            "v bias": zero("v_proj.bias"),
            "theta": setting(rope_theta=10000.0),
            "norm weights": flatten("norm.weight", 1.0),
        },
    ),
    # Qwen3 in small: q/k norms, a head_dim that is not dim / n_heads, an output head of its own.
    Recipe(
        name="qwen3-tiny",
        seed=1,
        n_tokens=24,
        config=dict(
            architectures=["Qwen3ForCausalLM"],
            model_type="qwen3",
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=16,
            vocab_size=128,
            max_position_embeddings=256,
            rms_norm_eps=1e-6,
            rope_theta=1000000.0,
            rope_scaling=None,
            tie_word_embeddings=False,
            hidden_act="silu",
            attention_bias=False,
            attention_dropout=0.0,
            use_sliding_window=False,
            sliding_window=None,
            max_window_layers=2,
            bos_token_id=1,
            eos_token_id=2,
            initializer_range=0.02,
            use_cache=True,
            torch_dtype="float32",
        ),
        ablations={
            "q norm": flatten("q_norm.weight", 1.0),
            "k norm": flatten("k_norm.weight", 1.0),
            "theta": setting(rope_theta=10000.0),
        },
    ),
    # Llama 3.2 in small. With theta 1e4, head_dim 16 and 64 original positions the wavelengths 2 pi 10^(i/2) fall into
    # all three bands of the llama3 scaling: below 64 / 4 (kept), between (blended) and above 64 / 1 (divided by 8).
    Recipe(
        name="llama3-scaled-tiny",
        seed=17,
        n_tokens=48,
        config=dict(
            architectures=["LlamaForCausalLM"],
            model_type="llama",
            hidden_size=32,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=16,
            vocab_size=128,
            max_position_embeddings=512,
            rms_norm_eps=1e-5,
            rope_theta=10000.0,
            rope_scaling=dict(
                factor=8.0,
                low_freq_factor=1.0,
                high_freq_factor=4.0,
                original_max_position_embeddings=64,
                rope_type="llama3",
            ),
            tie_word_embeddings=True,
            hidden_act="silu",
            attention_bias=False,
            mlp_bias=False,
            attention_dropout=0.0,
            pretraining_tp=1,
            bos_token_id=1,
            eos_token_id=[2, 3],
            initializer_range=0.02,
            use_cache=True,
            torch_dtype="float32",
        ),
        ablations={
            "rope scaling": setting(rope_scaling=None),
            "blended band": setting(
                rope_scaling=dict(
                    factor=8.0,
                    low_freq_factor=1.0,
                    high_freq_factor=1.001,
                    original_max_position_embeddings=64,
                    rope_type="llama3",
                )
            ),
        },
    ),
    # Gemma 3 text in small: GeGLU, four norms a layer with weights stored minus 1, scaled embedding, q/k norms, local
    # layers (window 7, theta 1e4) and global ones (theta 1e6), and a score scale that is not 1 / sqrt(head_dim).
    Recipe(
        name="gemma3-tiny",
        seed=4,
        n_tokens=24,
        norm_offset=1.0,
        config=dict(
            architectures=["Gemma3ForCausalLM"],
            model_type="gemma3_text",
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=1,
            head_dim=16,
            vocab_size=128,
            max_position_embeddings=256,
            rms_norm_eps=1e-6,
            rope_theta=1000000.0,
            rope_local_base_freq=10000.0,
            rope_scaling=None,
            query_pre_attn_scalar=24,
            sliding_window=7,
            layer_types=["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"],
            tie_word_embeddings=True,
            hidden_activation="gelu_pytorch_tanh",
            attention_bias=False,
            attention_dropout=0.0,
            attn_logit_softcapping=None,
            final_logit_softcapping=None,
            bos_token_id=2,
            eos_token_id=1,
            pad_token_id=0,
            initializer_range=0.02,
            use_cache=True,
            torch_dtype="float32",
        ),
        ablations={
            "window one wider": setting(sliding_window=8),
            "window one narrower": setting(sliding_window=6),
            "layer pattern": setting(layer_types=["sliding_attention"] * 3 + ["full_attention"]),
            "local theta": setting(rope_local_base_freq=1000000.0),
            "global theta": setting(rope_theta=10000.0),
            "score scale": setting(query_pre_attn_scalar=16),
            "activation": setting(hidden_activation="silu"),
            "post attention norm": zero("post_attention_layernorm.weight"),
            "post mlp norm": zero("post_feedforward_layernorm.weight"),
        },
    ),
]


def random_weights(recipe, directory):
    """Draws every tensor of the model described by `directory`/config.json; returns name -> f32 tensor."""
    model = AutoModelForCausalLM.from_config(load_config(directory))
    rng = torch.Generator().manual_seed(recipe.seed)
    weights = {}
    for name, parameter in model.named_parameters():
        shape = parameter.shape
        if "norm" in name:
            # Gemma scales its embedding by sqrt(dim); norms of 3 on each layer's output keep it from deciding alone.
            mean = 3.0 if recipe.norm_offset and "post_" in name else 1.0
            weights[name] = mean - 0.5 + torch.rand(shape, generator=rng) - recipe.norm_offset
        elif name.endswith("bias"):
            weights[name] = torch.randn(shape, generator=rng)
        elif "embed" in name:
            weights[name] = 0.4 * torch.randn(shape, generator=rng)
        else:
            # Gain 2 keeps the scores of the attention away from uniform and the layers' output above the embedding's.
            weights[name] = 2.0 * torch.randn(shape, generator=rng) / shape[1] ** 0.5
    return weights


def load_config(directory):
    return AutoConfig.from_pretrained(directory)


def write_model(directory, config, weights):
    """Writes a directory as the hub has it: config.json and model.safetensors."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    if weights:
        save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})


def load_model(directory):
    """The model in f32, whatever type its file has."""
    return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager").eval()


@torch.no_grad()
def logits_of(model, ids):
    return model(torch.tensor([ids]), use_cache=False).logits[0].float()


def greedy(model, ids, n):
    """Greedy continuation by full recomputation, checked against generate() with its cache; and the smallest margin."""
    out, margin = list(ids), float("inf")
    for _ in range(n):
        top = logits_of(model, out)[-1].topk(2)
        margin = min(margin, float(top.values[0] - top.values[1]))
        out.append(int(top.indices[0]))
    cached = model.generate(
        torch.tensor([ids]), max_new_tokens=n, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    assert cached[0].tolist() == out, "generate() with a cache disagrees"
    return out[len(ids) :], margin


def golden(directory, ids):
    """Runs the directory and writes golden.npz; returns the logits."""
    model = load_model(directory)
    logits = logits_of(model, ids)
    continuation, margin = greedy(model, ids, GREEDY_TOKENS)
    assert margin > MIN_MARGIN, f"{directory.name}: a greedy step is decided by {margin}; choose another seed"
    stops = model.config.eos_token_id
    assert not set(continuation) & set(stops if isinstance(stops, list) else [stops]), "the continuation would stop early"
    np.savez(
        directory / "golden.npz",
        ids=np.array(ids, np.int32),
        logits=logits.numpy(),
        greedy=np.array(continuation, np.int32),
    )
    print(f"{directory.name}: |logit| <= {logits.abs().max():.2f}, greedy margin {margin:.3f}, greedy {continuation}")
    return logits


def check_ablations(recipe, directory, weights, ids, logits):
    scratch = directory.with_name(directory.name + ".scratch")
    for what, ablate in recipe.ablations.items():
        config = json.loads(json.dumps(recipe.config))
        changed = {name: w.clone() for name, w in weights.items()}
        ablate(config, changed)
        write_model(scratch, config, changed)
        effect = float((logits_of(load_model(scratch), ids) - logits).abs().max())
        assert effect > MIN_EFFECT, f"{recipe.name}: {what} moves the logits by {effect} only"
        print(f"  {what}: moves the logits by {effect:.3f}")
    shutil.rmtree(scratch)


def make(recipe, out):
    directory = out / recipe.name
    shutil.rmtree(directory, ignore_errors=True)
    write_model(directory, recipe.config, None)
    weights = random_weights(recipe, directory)
    write_model(directory, recipe.config, weights)

    rng = np.random.default_rng(recipe.seed)
    ids = rng.integers(4, min(recipe.config["vocab_size"], 290), recipe.n_tokens).tolist()
    logits = golden(directory, ids)
    check_ablations(recipe, directory, weights, ids, logits)

    v5 = load_model(directory).config.to_dict()
    v5["dtype"] = "float32"
    published = (directory / "config.json").read_text()
    (directory / "config-v5.json").write_text(json.dumps(v5, indent=2) + "\n")
    shutil.copy(directory / "config-v5.json", directory / "config.json")
    assert torch.equal(logits_of(load_model(directory), ids), logits), "config-v5.json describes another model"
    (directory / "config.json").write_text(published)
    return ids


def make_sharded(source, out, n_shards=2):
    """A copy in shards with model.safetensors.index.json, as large models are published; tensors dealt in turn."""
    target = out / f"{source.name}-sharded"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    shutil.copy(source / "config.json", target)
    weights = load_file(source / "model.safetensors")
    shards, index = [{} for _ in range(n_shards)], {}
    for i, (name, w) in enumerate(sorted(weights.items())):
        shards[i % n_shards][name] = w
        index[name] = f"model-{i % n_shards + 1:05}-of-{n_shards:05}.safetensors"
    for i, shard in enumerate(shards):
        save_file(shard, target / f"model-{i + 1:05}-of-{n_shards:05}.safetensors", metadata={"format": "pt"})
    total = sum(w.nbytes for w in weights.values())
    text = json.dumps({"metadata": {"total_size": total}, "weight_map": index}, indent=2)
    (target / "model.safetensors.index.json").write_text(text + "\n")
    return target


def make_bf16(source, out):
    """A copy with bf16 weights; its golden output is computed from the rounded weights in f32."""
    target = out / f"{source.name}-bf16"
    shutil.rmtree(target, ignore_errors=True)
    config = json.loads((source / "config.json").read_text())
    config["torch_dtype"] = "bfloat16"
    weights = load_file(source / "model.safetensors")
    write_model(target, config, {name: w.to(torch.bfloat16) for name, w in weights.items()})
    return target


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("testdata/models"))
    out = parser.parse_args().out
    torch.set_num_threads(1)

    ids = {recipe.name: make(recipe, out) for recipe in RECIPES}

    llama = out / "llama3-scaled-tiny"
    sharded = golden(make_sharded(llama, out), ids[llama.name])
    assert np.array_equal(sharded.numpy(), np.load(llama / "golden.npz")["logits"])

    qwen3 = out / "qwen3-tiny"
    golden(make_bf16(qwen3, out), ids[qwen3.name])


if __name__ == "__main__":
    main()
