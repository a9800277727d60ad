"""Runs mem0 with `infer=False` in its own environment: a JSON request a line in, an answer a line out.

Its code stores and ranks; vectors are asked back over the pipe, so that every row goes by the same embedder.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from importlib import import_module
from typing import Any

_HOME = tempfile.mkdtemp(prefix="mem0-")
os.environ.update(MEM0_TELEMETRY="False", MEM0_DIR=_HOME, HOME=_HOME, OPENAI_API_KEY="none")

Embeddings: Any = import_module("langchain_core.embeddings").Embeddings  # once it knows where home is
Memory: Any = import_module("mem0").Memory

_USER = "u"


def tell(**told: object) -> None:
    """Answer with one line."""
    print(json.dumps(told), flush=True)


class Asked(Embeddings):  # type: ignore[misc]  # another environment's class
    """The embedder at the other end of the pipe."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        tell(embed=texts)
        vectors: list[list[float]] = json.loads(sys.stdin.readline())["vectors"]
        return vectors

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]


def opened(name: str) -> Any:
    """A memory of its own for a chat."""
    store = {"collection_name": name, "path": f"{_HOME}/{name}", "embedding_model_dims": 384, "on_disk": True}
    return Memory.from_config(
        {
            "embedder": {"provider": "langchain", "config": {"model": Asked(), "embedding_dims": 384}},
            "vector_store": {"provider": "qdrant", "config": store},
            "llm": {"provider": "openai", "config": {"api_key": "none"}},
            "history_db_path": f"{_HOME}/{name}.db",
        }
    )


def main() -> None:
    """Serve until the input ends."""
    memory: Any = None
    number = 0
    for line in sys.stdin:
        asked = json.loads(line)
        if asked["do"] == "begin":
            number += 1
            memory = opened(f"chat{number}")
            for said in asked["turns"]:
                memory.add(said["text"], user_id=_USER, infer=False, metadata={"turn": said["id"]})
            tell(done=True)
        else:
            found = memory.search(asked["query"], filters={"user_id": _USER}, top_k=asked["k"], threshold=0.0)
            tell(ids=[row["metadata"]["turn"] for row in found["results"]])


if __name__ == "__main__":
    main()
