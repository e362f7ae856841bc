"""Small random decoders and texts for tests of the steps."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from compress.text import Blocks

VOCABULARY = 64


def llama(*, layers: int = 3, tied: bool = True, seed: int = 0, dtype: torch.dtype = torch.float32) -> LlamaForCausalLM:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=VOCABULARY,
                hidden_size=64,
                intermediate_size=128,
                num_hidden_layers=layers,
                num_attention_heads=4,
                num_key_value_heads=2,
                max_position_embeddings=64,
                tie_word_embeddings=tied,
                initializer_range=0.2,
            )
        )
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)  # not the buffers: the angles of positions stay exact
    model.config.dtype = dtype
    model.requires_grad_(False)
    return model.eval()


def some_text(*, blocks: int = 6, tokens: int = 32, seed: int = 0) -> Blocks:
    source = torch.Generator().manual_seed(seed)
    rows = torch.randint(VOCABULARY, (blocks, tokens), generator=source)
    return Blocks(rows=tuple(tuple(row) for row in rows.tolist()))


def logits(model: torch.nn.Module, text: Blocks) -> torch.Tensor:
    with torch.inference_mode():
        return torch.cat([model(torch.tensor([row]), use_cache=False).logits.float() for row in text.rows])


def unheard(share: float) -> None:
    assert 0 <= share <= 1
