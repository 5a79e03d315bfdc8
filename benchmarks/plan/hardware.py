"""Arithmetic of memory and time: models, GPUs, and what one of them takes for tokens that it reads or writes."""

from __future__ import annotations

from dataclasses import dataclass

GB = 1e9


@dataclass(frozen=True)
class Model:
    """A decoder as far as arithmetic needs it; the numbers are those of its config.json."""

    name: str
    parameters: float
    layers: int
    kv_heads: int
    head_size: int
    bytes: int = 2
    """Per weight, and per number in the cache of keys and values."""

    @property
    def weights_gb(self) -> float:
        """Memory of the weights."""
        return self.parameters * self.bytes / GB

    @property
    def kv_bytes(self) -> float:
        """Bytes of keys and values per token of context."""
        return 2 * self.layers * self.kv_heads * self.head_size * self.bytes

    @property
    def training_gb(self) -> float:
        """Memory of full training: weights and gradients in bfloat16, master weights and two moments of AdamW in float32."""
        return self.parameters * 16 / GB

    def lora_gb(self, share: float = 0.01) -> float:
        """Memory of training adapters that have this share of the weights."""
        return self.weights_gb + share * self.training_gb


@dataclass(frozen=True)
class Gpu:
    """A device, or several of one machine that hold a model together (tensor parallel); the numbers are its maker's."""

    name: str
    memory_gb: float
    bandwidth: float
    """Bytes per second."""
    flops: float
    """Dense operations per second in bfloat16."""
    reached_bandwidth: float = 0.6
    reached_flops: float = 0.4
    """Shares of both that software reaches; assumptions, measure your own."""


SMOLLM2 = Model("SmolLM2-135M", 0.135e9, 30, 3, 64)
QWEN_7B = Model("Qwen2.5-7B", 7.6e9, 28, 4, 128)
QWEN_32B = Model("Qwen2.5-32B", 32.8e9, 64, 8, 128)
H100 = Gpu("H100 80 GB", 80, 3.35e12, 989e12)


@dataclass(frozen=True)
class Replica:
    """A model on `gpus` devices of one machine, as an inference server runs it.

    Args:
        model: what is served.
        gpu: the device.
        gpus: devices per replica.
        context: tokens of an average sequence, for the memory that each takes.
        most_slots: sequences that the server takes at once, whatever fits.
    """

    model: Model
    gpu: Gpu
    gpus: int
    context: int
    most_slots: int = 256

    @property
    def slots(self) -> int:
        """Sequences that fit at once: what is left of 90 % of the memory after the weights, over the cache of one of them."""
        free = 0.9 * self.gpu.memory_gb * self.gpus - self.model.weights_gb
        return min(self.most_slots, int(free * GB / (self.context * self.model.kv_bytes)))

    def read_s(self, tokens: float) -> float:
        """Seconds to read tokens of a prompt that are not in the prefix cache; bound by arithmetic."""
        return 2 * self.model.parameters * tokens / (self.gpu.flops * self.gpu.reached_flops * self.gpus)

    def write_s(self, sequences: int) -> float:
        """Seconds for one more token of each of so many sequences: reading weights and caches, or arithmetic if slower."""
        moved = self.model.parameters * self.model.bytes + sequences * self.context * self.model.kv_bytes
        return max(moved / (self.gpu.bandwidth * self.gpu.reached_bandwidth * self.gpus), self.read_s(sequences))


def training_s(model: Model, gpu: Gpu, gpus: int, tokens: float) -> float:
    """Seconds of an update on tokens: forward, backward and the forward pass of gradient checkpointing, 8 operations each."""
    return 8 * model.parameters * tokens / (gpu.flops * gpu.reached_flops * gpus)
