//! Adapters that tests make.

use std::path::Path;

use engine::Model;

/// All linear layers.
pub(crate) const ALL: [&str; 7] =
    ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

/// An adapter of rank 3 for a model, beside those of its linear layers whose names end so.
pub(crate) fn adapter(folder: &Path, model: &Model, targets: &[&str], seed: f32) {
    let c = &model.config;
    let sizes = [
        ("self_attn.q_proj", c.q_dim(), c.dim),
        ("self_attn.k_proj", c.kv_dim(), c.dim),
        ("self_attn.v_proj", c.kv_dim(), c.dim),
        ("self_attn.o_proj", c.dim, c.q_dim()),
        ("mlp.gate_proj", c.hidden_dim, c.dim),
        ("mlp.up_proj", c.hidden_dim, c.dim),
        ("mlp.down_proj", c.dim, c.hidden_dim),
    ];
    let noise = |n: usize, of: f32| -> Vec<u8> {
        (0..n).flat_map(|i| ((i as f32 * 0.37 + of).sin() * 0.2).to_le_bytes()).collect()
    };
    let mut tensors = Vec::new();
    for l in 0..c.n_layers {
        for (module, rows, cols) in sizes.iter().filter(|(m, ..)| targets.iter().any(|t| m.ends_with(t))) {
            let name = format!("base_model.model.model.layers.{l}.{module}");
            let of = seed + l as f32 + *rows as f32;
            tensors.push((format!("{name}.lora_A.weight"), vec![3, *cols], noise(3 * cols, of)));
            tensors.push((format!("{name}.lora_B.weight"), vec![*rows, 3], noise(3 * rows, of + 0.5)));
        }
    }
    let views = tensors.iter().map(|(name, shape, bytes)| {
        (name, safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes).unwrap())
    });
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("adapter_model.safetensors"), safetensors::serialize(views, None).unwrap())
        .unwrap();
    let config =
        serde_json::json!({ "peft_type": "LORA", "r": 3, "lora_alpha": 6, "target_modules": targets });
    std::fs::write(folder.join("adapter_config.json"), config.to_string()).unwrap();
}
