"""What an import costs: counted in modules, which unlike seconds is the same on every machine."""

from __future__ import annotations

from tests.shape.imports import ROOT, loaded, third_party

HEAVY = {"torch", "transformers", "faiss", "tokenizers", "tiktoken", "bpe_openai", "jinja2", "numpy", "langchain_core"}


def test_import_ctxmem_loads_no_third_party_module() -> None:
    """The core needs nothing but Python."""
    assert third_party("ctxmem") == set()


def test_import_ctxmem_stays_small() -> None:
    """Fewer than 150 modules, those of a bare interpreter included."""
    assert len(loaded("ctxmem")) < 150


def test_every_core_module_needs_only_python() -> None:
    """What needs more lives in a folder of its own, behind a port, or is imported where it is used."""
    core = [f"ctxmem.{path.stem}" for path in (ROOT / "ctxmem").glob("*.py") if path.stem not in ("__init__", "cli")]
    assert third_party(*core) == set()


def test_the_gateway_imports_no_model_library() -> None:
    """Counting and scoring live in the model worker, which is why the gateway is small and starts in a second."""
    assert third_party("service.gateway", "service.app") & HEAVY == set()
