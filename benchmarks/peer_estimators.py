"""What do other estimators say of a model's memory and of its time per token? Their formulas, restated from sources."""

from math import ceil

from cluster.devices import Device
from cluster.model import Attention, Model

GIB = 2**30


def accelerate_weights_bytes(model: Model) -> float:
    """`accelerate estimate-memory --dtypes float16`: all parameters and buffers in float32, halved; nothing for the
    cache or the engine (accelerate 1.14, commands/estimate.py gather_data, utils/modeling.py calculate_maximum_sizes).
    Rotary frequencies, a buffer of some hundred bytes, are left out here.
    """
    return model.parameters * 4 / 2


def eleuther_bytes(model: Model) -> float:
    """1.2 * the model's memory, for inference (EleutherAI, Transformer Math 101, "Total Inference Memory",
    https://blog.eleuther.ai/transformer-math/; the Hub's model-memory-usage page adds the same 20 %).
    """
    return 1.2 * model.weight_bytes


def substratus_bytes(nominal_parameters: float, bits: int) -> float:
    """P * 4 bytes / (32 / Q) * 1.2, P being the number in the model's name (Substratus, "Calculating GPU memory for
    serving LLMs", https://www.substratus.ai/blog/calculating-gpu-memory-for-llm/).
    """
    return nominal_parameters * 4 / (32 / bits) * 1.2


def kipply_kv_bytes_per_token(model: Model) -> int:
    """2 * 2 * layers * heads * head_dim: written before heads shared their keys and values (kipply, Transformer
    Inference Arithmetic, "kv cache", https://kipp.ly/transformer-inference-arithmetic/).
    """
    return sum(2 * 2 * mixer.heads * mixer.head_dim for mixer in _attentions(model))


def llm_d_kv_bytes_per_token(model: Model) -> int:
    """layers * 2 * head_dim * kv_heads * bytes of a value (llm-d-planner, src/planner/capacity_planner.py,
    KVCacheDetail).
    """
    return sum(2 * mixer.head_dim * mixer.kv_heads * model.dtype_bits // 8 for mixer in _attentions(model))


LLM_D_ACTIVATION_GIB = {"LlamaForCausalLM": 1.89, "Qwen3ForCausalLM": 2.21, "Qwen3MoeForCausalLM": 2.68}
LLM_D_NON_TORCH_GIB, LLM_D_NON_TORCH_TENSOR_GIB = 0.27, 2.10
"""data/configuration/vllm_memory_constants.json: measured with vLLM 0.19 on an H100."""


def llm_d_cache_bytes(model: Model, device: Device, *, tensor: int, utilization: float) -> float:
    """memory * utilization * devices - weights - a constant of the architecture - a constant of the layout for each
    device, for the cache of one replica (llm-d-planner, src/planner/capacity_planner.py, allocatable_kv_cache_memory).
    A device's memory is a whole number of GiB, as its name says.
    """
    memory_gib = round(device.memory_bytes / GIB)
    outside_gib = LLM_D_NON_TORCH_TENSOR_GIB if tensor > 1 else LLM_D_NON_TORCH_GIB
    used_gib = model.weight_bytes / GIB + LLM_D_ACTIVATION_GIB[model.architecture] + outside_gib * tensor
    return max(0.0, memory_gib * utilization * tensor - used_gib) * GIB


def remaining_cache_bytes(total_bytes: float, device: Device, *, tensor: int, utilization: float) -> float:
    """What a rule for the whole leaves of what vLLM asks for: ceil(memory * gpu_memory_utilization) on each device
    (vllm/v1/worker/utils.py request_memory).
    """
    return max(0.0, ceil(device.memory_bytes * utilization) * tensor - total_bytes)


def kipply_token_s(model: Model, device: Device, *, batch: float, devices: int) -> float:
    """max(2 P * batch / operations per second, 2 P / bandwidth), both shared by the devices: weights are read once
    for the batch, the cache is not counted (kipply, as above, "latency calculations"). P is dense there: for experts
    the active parameters compute, and all are read.
    """
    compute_s = 2 * model.active_parameters * batch / (device.flops["bf16"] * devices)
    return max(compute_s, 2 * model.parameters / (device.bandwidth_bytes_per_s * devices))


def databricks_token_s(model: Model, device: Device, *, batch: float, context_tokens: float, devices: int) -> float:
    """(weights + cache) / bandwidth: the time per token at which model bandwidth utilization is 1 (Databricks, LLM
    Inference Performance Engineering: Best Practices, 2023, "Model Bandwidth Utilization").
    """
    cache_bytes = batch * context_tokens * llm_d_kv_bytes_per_token(model)
    return (model.weight_bytes + cache_bytes) / (device.bandwidth_bytes_per_s * devices)


def _attentions(model: Model) -> list[Attention]:
    return [mixer for mixer in model.mixers if isinstance(mixer, Attention)]
