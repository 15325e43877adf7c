"""One training step of a BitNet b1.58 in PyTorch on the CPU, as `crates/train/examples/step.rs` computes it.

usage: torch_step.py DIM LAYERS HIDDEN HEADS VOCAB SEQ BATCH THREADS
"""

import sys
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

DIM, LAYERS, HIDDEN, HEADS, VOCAB, SEQ, BATCH, THREADS = map(int, sys.argv[1:9])
torch.set_num_threads(THREADS)
torch.manual_seed(0)


class BitLinear(nn.Linear):
    """Ternary weights by their mean magnitude, activations of 8 bits by the token; straight-through gradients."""

    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs, bias=False)

    def forward(self, x):
        scale = 1.0 / self.weight.abs().mean().clamp_(min=1e-5)
        w = (self.weight * scale).round().clamp(-1, 1) / scale
        w = self.weight + (w - self.weight).detach()
        s = 127 / x.abs().amax(-1, keepdim=True).clamp_(min=1e-5)
        q = (x * s).round().clamp(-128, 127) / s
        return F.linear(x + (q - x).detach(), w)


def rotate(x, cos, sin):
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat((-b, a), -1) * sin


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.n1, self.n2, self.n3 = (nn.RMSNorm(DIM, eps=1e-5) for _ in range(3))
        self.n4 = nn.RMSNorm(HIDDEN, eps=1e-5)
        self.q, self.k, self.v, self.o = (BitLinear(DIM, DIM) for _ in range(4))
        self.gate, self.up, self.down = BitLinear(DIM, HIDDEN), BitLinear(DIM, HIDDEN), BitLinear(HIDDEN, DIM)

    def forward(self, x, cos, sin):
        b, t, _ = x.shape
        h = self.n1(x)
        q, k, v = (f(h).reshape(b, t, HEADS, -1).transpose(1, 2) for f in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(rotate(q, cos, sin), rotate(k, cos, sin), v, is_causal=True)
        x = x + self.o(self.n3(y.transpose(1, 2).reshape(b, t, DIM)))
        h = self.n2(x)
        return x + self.down(self.n4(F.relu(self.gate(h)).square() * self.up(h)))


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(VOCAB, DIM)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.norm = nn.RMSNorm(DIM, eps=1e-5)
        half = DIM // HEADS // 2
        angles = torch.outer(torch.arange(SEQ), 1e4 ** (-torch.arange(half) / half))
        self.cos, self.sin = torch.cat((angles, angles), -1).cos(), torch.cat((angles, angles), -1).sin()

    def forward(self, ids):
        x = self.embedding(ids)
        for layer in self.layers:
            x = layer(x, self.cos, self.sin)
        return F.linear(self.norm(x), self.embedding.weight)


model = Model()
optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
ids, targets = torch.randint(0, VOCAB, (BATCH, SEQ)), torch.randint(0, VOCAB, (BATCH, SEQ))
best = float("inf")
for _ in range(8):
    start = time.perf_counter()
    loss = F.cross_entropy(model(ids).reshape(-1, VOCAB), targets.reshape(-1))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    value = loss.item()
    best = min(best, time.perf_counter() - start)
count = sum(p.numel() for p in model.parameters())
print(f"torch: {count} parameters, {THREADS} threads: {best * 1e3:.0f} ms a step, {BATCH * SEQ / best:.0f} tokens/s, loss {value:.4f}")
