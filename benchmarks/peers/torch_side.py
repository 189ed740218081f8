"""PyTorch's side: eager, compiled (`torch.compile`), and packed sequences for the bi-LSTM."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.sizes import (
    BILSTM,
    CELLS,
    GPT,
    LENET,
    MLP,
    TEXTCNN,
    TINY,
    TREE,
    Step,
    Tree,
    generator,
    random_trees,
    sentence_lengths,
)


def _train(
    forward: Callable[..., Tensor], optimizer: torch.optim.Optimizer, mode: str, inputs: Any, labels: Tensor
) -> Step:
    """One step of training a classifier whose logits are (examples, classes), or (N, T, classes) for `gpt`."""
    run = torch.compile(forward) if mode == "compile" else forward
    labels = labels.flatten()

    def step() -> None:
        optimizer.zero_grad()
        logits = run(inputs)
        if logits.ndim == 3:
            logits = logits.view(-1, logits.shape[-1])
        F.cross_entropy(logits, labels).backward()
        optimizer.step()

    return step


def _parameters(*modules: nn.Module) -> list[Any]:
    return [p for module in modules for p in module.parameters()]


def bilstm(mode: str) -> Step:
    """Sentence by sentence without padding ("eager"), or all in one packed sequence ("packed")."""
    c, rng, lengths = BILSTM, generator(), sentence_lengths()
    xs = [torch.from_numpy(rng.standard_normal((t, c.features)).astype("f4")) for t in lengths]
    ys = torch.from_numpy(rng.integers(0, c.classes, len(lengths)))
    lstm, head = nn.LSTM(c.features, c.hidden, bidirectional=True), nn.Linear(2 * c.hidden, c.classes)
    drop, cross_entropy = nn.Dropout(c.dropout), nn.CrossEntropyLoss()
    optimizer = torch.optim.Adadelta(_parameters(lstm, head))

    def one_by_one() -> None:
        optimizer.zero_grad()
        for x, y in zip(xs, ys, strict=True):
            out, _ = lstm(x.unsqueeze(1))
            last = torch.cat([out[-1, :, : c.hidden], out[0, :, c.hidden :]], -1)
            (cross_entropy(head(drop(last)), y[None]) / len(xs)).backward()
        optimizer.step()

    def packed() -> None:
        optimizer.zero_grad()
        _, (h, _) = lstm(nn.utils.rnn.pack_sequence(xs, enforce_sorted=False))
        cross_entropy(head(drop(torch.cat([h[0], h[1]], -1))), ys).backward()
        optimizer.step()

    return packed if mode == "packed" else one_by_one


def mlp(mode: str) -> Step:
    """Dense, relu, dropout, dense."""
    c = MLP
    model = nn.Sequential(
        nn.Linear(c.inputs, c.hidden), nn.ReLU(), nn.Dropout(c.dropout), nn.Linear(c.hidden, c.classes)
    )
    x, y = torch.randn(c.batch, c.inputs), torch.randint(0, c.classes, (c.batch,))
    return _train(model, torch.optim.Adam(model.parameters()), mode, x, y)


def lenet(mode: str) -> Step:
    """Two convolutions with pools, two dense layers."""
    c = LENET
    model = nn.Sequential(
        nn.Conv2d(1, c.filters[0], c.window),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Conv2d(c.filters[0], c.filters[1], c.window),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(c.flat, c.hidden),
        nn.ReLU(),
        nn.Linear(c.hidden, c.classes),
    )
    x, y = torch.randn(c.batch, 1, c.side, c.side), torch.randint(0, c.classes, (c.batch,))
    return _train(model, torch.optim.Adam(model.parameters()), mode, x, y)


def _recurrent(name: str, mode: str) -> Step:
    """The last state of `nn.LSTM`, classified; batch first."""
    c = CELLS[name]
    lstm, head = nn.LSTM(c.features, c.units, batch_first=True), nn.Linear(c.units, c.classes)
    optimizer = torch.optim.Adam(_parameters(lstm, head))
    x, y = torch.randn(c.batch, c.length, c.features), torch.randint(0, c.classes, (c.batch,))
    return _train(lambda x: head(lstm(x)[0][:, -1]), optimizer, mode, x, y)


cell25, cell128 = partial(_recurrent, "cell25"), partial(_recurrent, "cell128")


def tree(mode: str) -> Step:
    """A Tree-LSTM by plain recursion."""
    c, rng = TREE, generator()
    trees = random_trees(rng)
    labels = torch.from_numpy(rng.integers(0, c.classes, c.trees))
    embedding, leaf = nn.Embedding(c.tokens, c.features), nn.Linear(c.features, 3 * c.hidden)
    compose, head = nn.Linear(2 * c.hidden, 5 * c.hidden), nn.Linear(c.hidden, c.classes)
    ids = torch.arange(c.tokens)

    def encode(node: Tree) -> tuple[Tensor, Tensor]:
        if isinstance(node, int):
            i, o, u = leaf(embedding(ids[node])).chunk(3)
            cell = torch.sigmoid(i) * torch.tanh(u)
        else:
            (h_left, c_left), (h_right, c_right) = encode(node[0]), encode(node[1])
            i, f_left, f_right, o, u = compose(torch.cat([h_left, h_right])).chunk(5)
            cell = torch.sigmoid(i) * torch.tanh(u) + torch.sigmoid(f_left) * c_left + torch.sigmoid(f_right) * c_right
        return torch.sigmoid(o) * torch.tanh(cell), cell

    def forward(trees: Any) -> Tensor:
        return torch.stack([head(encode(t)[0]) for t in trees])

    optimizer = torch.optim.Adam(_parameters(embedding, leaf, compose, head))
    return _train(forward, optimizer, mode, trees, labels)


def tiny(mode: str) -> Step:
    """`torch.autograd.grad` ("eager") or `torch.func.grad` ("func")."""
    c, rng = TINY, generator()
    x = torch.from_numpy(rng.standard_normal((c.examples, c.features)))
    y = torch.from_numpy(rng.integers(0, 2, c.examples).astype("f8"))
    w = torch.zeros(c.features, dtype=torch.float64, requires_grad=True)

    def loss(w: Tensor) -> Tensor:
        p = 0.5 * (torch.tanh(x @ w) + 1)
        return -torch.log(p * y + (1 - p) * (1 - y)).sum()

    if mode == "func":
        gradient, point = torch.func.grad(loss), w.detach()
        return lambda: gradient(point)
    return lambda: torch.autograd.grad(loss(w), w)


class _Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self) -> None:
        super().__init__()
        width = GPT.width
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k, v = (
            z.view(batch, length, GPT.heads, width // GPT.heads).transpose(1, 2)
            for z in self.qkv(self.norm1(x)).chunk(3, -1)
        )
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(attended.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))


class _Gpt(nn.Module):
    """Token and position embeddings, blocks, norm, logits."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(GPT.vocabulary, GPT.width)
        self.positions = nn.Parameter(torch.zeros(GPT.length, GPT.width))
        self.blocks = nn.Sequential(*[_Block() for _ in range(GPT.blocks)])
        self.norm, self.head = nn.LayerNorm(GPT.width), nn.Linear(GPT.width, GPT.vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.tokens(tokens) + self.positions)))


def gpt(mode: str) -> Step:
    """The transformer, with PyTorch's fused attention."""
    c, model = GPT, _Gpt()
    tokens, labels = (torch.randint(0, c.vocabulary, (c.batch, c.length)) for _ in range(2))
    return _train(model, torch.optim.AdamW(model.parameters(), c.learning_rate), mode, tokens, labels)


def textcnn(mode: str) -> Step:
    """Convolutions of three widths, each with relu and the maximum over time."""
    c = TEXTCNN
    convs = nn.ModuleList([nn.Conv1d(c.features, c.filters, k) for k in c.windows])
    head, drop = nn.Linear(len(c.windows) * c.filters, c.classes), nn.Dropout(c.dropout)

    def forward(x: Tensor) -> Tensor:
        return head(drop(torch.cat([F.relu(conv(x)).amax(-1) for conv in convs], -1)))

    x, y = torch.randn(c.batch, c.features, c.length), torch.randint(0, c.classes, (c.batch,))
    return _train(forward, torch.optim.Adadelta(_parameters(convs, head)), mode, x, y)


def pergrad(mode: str) -> Step:
    """`vmap` of `grad`."""
    c = MLP
    params = (
        torch.randn(c.inputs, c.hidden) * 0.05,
        torch.zeros(c.hidden),
        torch.randn(c.hidden, c.classes) * 0.05,
        torch.zeros(c.classes),
    )
    xs, ys = torch.randn(c.batch, c.inputs), torch.randint(0, c.classes, (c.batch,))

    def loss(p: tuple[Tensor, ...], x: Tensor, y: Tensor) -> Tensor:
        hidden = torch.relu(x @ p[0] + p[1])
        return F.cross_entropy((hidden @ p[2] + p[3])[None], y[None])

    gradients = torch.func.vmap(torch.func.grad(loss), (None, 0, 0))
    if mode == "compile":
        gradients = torch.compile(gradients)
    return lambda: gradients(params, xs, ys)
