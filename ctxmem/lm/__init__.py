"""Language models on this machine: self-information, chat. The only package that imports torch and transformers."""

from importlib.util import find_spec

from ctxmem.errors import ModelError

_missing = [package for package in ("torch", "transformers", "safetensors") if find_spec(package) is None]
if _missing:
    raise ModelError(f"local models need {', '.join(_missing)}; install them with: pip install 'ctxmem[torch]'")
