"""The sets that the reranker is trained and measured on, read from `CTXMEM_DATA` into one shape, with fixed splits.

Training takes only rows whose licence lets weights ship: NQ, HotpotQA, SQuAD, SciFact's train queries, wiki2, and the
chats and meetings of `bench.rerank_chats`. LoCoMo, Cranfield and TREC DL are measured only.
"""

from __future__ import annotations

import gzip
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from zlib import crc32


@dataclass(slots=True)
class RankingSet:
    """Documents, queries and graded relevance.

    Attributes:
        docs: text by document id, the title in front.
        queries: text by query id.
        gold: by query id, grade by document id; above 0 is relevant.
        pool: by query id, the only documents that may be ranked; all of them when a query is absent.
        titles: by document id, of those that have one.
    """

    name: str
    docs: dict[str, str]
    queries: dict[str, str]
    gold: dict[str, dict[str, float]]
    pool: dict[str, list[str]] = field(default_factory=dict)
    titles: dict[str, str] = field(default_factory=dict)

    def part(self, split: str) -> RankingSet:
        """The queries of one split: 65 % `train`, 10 % `dev`, 25 % `test`, by a hash of the id."""
        kept = {key: text for key, text in self.queries.items() if split_of(self.name, key) == split}
        return self.asking(kept)

    def asking(self, queries: dict[str, str]) -> RankingSet:
        """The same documents under these of its queries."""
        return replace(self, queries=queries, gold={key: self.gold[key] for key in queries})


def split_of(name: str, key: str) -> str:
    """The split of one query; MuSiQue is held out whole, HotpotQA's dev questions are its test."""
    if name == "musique":
        return "test"
    share = crc32(f"{name}:{key}".encode()) % 100
    if name == "hotpotqa":
        return "test" if key.startswith("dev:") else "train"
    return "train" if share < 65 else "dev" if share < 75 else "test"


def load(name: str) -> RankingSet:
    """One set by name."""
    return LOADERS[name](Path(os.environ["CTXMEM_DATA"]))


def lines(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
        for line in file:
            yield json.loads(line)


def _corpus(path: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Documents with their titles in front, and the titles."""
    rows = {row["_id"]: row for row in lines(path)}
    titles = {key: row.get("title", "") for key, row in rows.items()}
    return {key: f"{titles[key]}. {row['text']}".lstrip(". ") for key, row in rows.items()}, titles


def nq(root: Path) -> RankingSet:
    docs, titles = _corpus(root / "nq/shared/corpus.jsonl")
    rows = [row for row in lines(root / "nq/open/nq_open.jsonl") if row["gold"] in docs]
    queries = {row["_id"]: row["question"] for row in rows}
    return RankingSet("nq", docs, queries, {row["_id"]: {row["gold"]: 1.0} for row in rows}, titles=titles)


def hotpotqa(root: Path) -> RankingSet:
    docs, titles = _corpus(root / "hotpotqa/shared/corpus.jsonl")
    queries, gold = {}, {}
    by_title = {title: key for key, title in titles.items()}
    for part, file in (("train", "hotpot_train100.jsonl"), ("dev", "hotpot_dev_reflexion.jsonl")):
        for row in lines(root / "hotpotqa/open" / file):
            found = {by_title[title]: 1.0 for title, _ in row["supporting_facts"] if title in by_title}
            if found:
                queries[f"{part}:{row['_id']}"] = row["question"]
                gold[f"{part}:{row['_id']}"] = found
    return RankingSet("hotpotqa", docs, queries, gold, titles=titles)


def musique(root: Path) -> RankingSet:
    (docs, titles), queries, gold = _corpus(root / "musique/shared/corpus.jsonl"), {}, {}
    place = {text: key for key, text in docs.items()}
    for row in lines(root / "musique/open/musique_open.jsonl"):
        texts = [f"{one['title']}. {one['paragraph_text']}" for one in row["paragraphs"] if one["is_supporting"]]
        found = {place[text]: 1.0 for text in texts if text in place}
        if found:
            queries[row["id"]], gold[row["id"]] = row["question"], found
    return RankingSet("musique", docs, queries, gold, titles=titles)


def squad(root: Path) -> RankingSet:
    docs, queries, gold = {}, {}, {}
    for number, article in enumerate(json.loads((root / "squad_xquad_en/open/squad_open.json").read_text())["data"]):
        for place, paragraph in enumerate(article["paragraphs"]):
            key = f"{number}.{place}"
            docs[key] = paragraph["context"]
            for one in paragraph["qas"]:
                queries[one["id"]], gold[one["id"]] = one["question"], {key: 1.0}
    return RankingSet("squad", docs, queries, gold)


def scifact(root: Path) -> RankingSet:
    gold: dict[str, dict[str, float]] = {}
    for row in lines(root / "scifact/open/qrels_train.jsonl"):
        if row["rel"] > 0:
            gold.setdefault(row["qid"], {})[row["docid"]] = float(row["rel"])
    queries = {
        row["_id"]: row["text"] for row in lines(root / "scifact/open/queries_train.jsonl") if row["_id"] in gold
    }
    docs, titles = _corpus(root / "scifact/shared/corpus.jsonl.gz")
    return RankingSet("scifact", docs, queries, gold, titles=titles)


def cranfield(root: Path) -> RankingSet:
    gold: dict[str, dict[str, float]] = {}
    for row in lines(root / "cranfield/open/qrels.jsonl"):
        if row["rel"] > 0:
            gold.setdefault(row["qid"], {})[row["docid"]] = float(row["rel"])
    docs = {row["_id"]: row["text"] for row in lines(root / "cranfield/open/corpus.jsonl")}
    queries = {row["_id"]: row["text"] for row in lines(root / "cranfield/open/queries.jsonl") if row["_id"] in gold}
    return RankingSet("cranfield", docs, queries, gold)


def locomo(root: Path) -> RankingSet:
    """Turns with speaker, date and the turn before; each question ranks the turns of its own chat."""
    made = RankingSet("locomo", {}, {}, {})
    for number, chat in enumerate(json.loads((root / "locomo/open/locomo_open.json").read_text())):
        own = _turns(number, chat["conversation"])
        made.docs |= own
        for place, row in enumerate(chat["qa"]):
            named = re.findall(r"D\d+:\d+", " ".join(map(str, row.get("evidence", []))))
            found = {f"{number}/{one}": 1.0 for one in named if f"{number}/{one}" in own}
            if found and row["category"] != 5:
                key = f"{number}.{place}"
                made.queries[key], made.gold[key], made.pool[key] = row["question"], found, list(own)
    return made


def _turns(number: int, chat: dict[str, Any]) -> dict[str, str]:
    turns: dict[str, str] = {}
    sessions = sorted(int(key.split("_")[1]) for key in chat if re.fullmatch(r"session_\d+", key))
    for session in sessions:
        date, before = chat.get(f"session_{session}_date_time", ""), ""
        for turn in chat[f"session_{session}"]:
            said = f"{turn['speaker']}: {turn['text']} {turn.get('blip_caption', '')}".strip()
            turns[f"{number}/{turn['dia_id']}"] = f"[{date}] {before} {said}".strip()
            before = said
    return turns


def trec_dl(root: Path, year: str = "19") -> RankingSet:
    """The judged queries of one year over the stored BM25 candidates, which is how TREC reranks."""
    folder = root / "trec_dl/open"
    docs = {row["_id"]: row["text"] for row in lines(folder / f"dl{year}_passages.jsonl.gz")}
    texts = {row["_id"]: row["text"] for row in lines(folder / f"dl{year}_queries.jsonl")}
    gold: dict[str, dict[str, float]] = {}
    for line in gzip.decompress((folder / f"dl{year}_qrels.tsv.gz").read_bytes()).decode().splitlines():
        query, doc, *_, grade = line.split("\t")
        gold.setdefault(query, {})[doc] = max(0.0, float(grade))
    pool: dict[str, list[str]] = {}
    for line in gzip.decompress((folder / f"dl{year}_runs.tsv.gz").read_bytes()).decode().splitlines():
        run, query, doc, *_ = line.split("\t")
        if run == "bm25" and doc in docs:
            pool.setdefault(query, []).append(doc)
    kept = {key: text for key, text in texts.items() if key in gold and key in pool}
    return RankingSet(f"trec_dl{year}", docs, kept, {key: gold[key] for key in kept}, pool)


LOADERS: dict[str, Callable[[Path], RankingSet]] = {
    "nq": nq,
    "hotpotqa": hotpotqa,
    "musique": musique,
    "squad": squad,
    "scifact": scifact,
    "cranfield": cranfield,
    "locomo": locomo,
    "trec_dl19": trec_dl,
    "trec_dl21": lambda root: trec_dl(root, "21"),
}
