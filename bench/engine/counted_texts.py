"""Prompts and answers of four kinds, counted by a tokenizer that the gateway has not.

Made once, with the workers' environment, and kept in tests/data/counted_texts.json.gz: prose and
code from this repository, Chinese, Japanese and Korean sentences, and JSON made up at random.

    .venv-worker/bin/python -m bench.engine.counted_texts <folder with tokenizer.json>
"""

import gzip
import json
import random
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tokenizers import Tokenizer

ROOT: Final = Path(__file__).resolve().parents[2]
KEPT: Final = ROOT / "tests" / "data" / "counted_texts.json.gz"
TEXTS: Final = 620
PROMPT_CHARACTERS_MAX: Final = 1_200
ANSWER_CHARACTERS_MAX: Final = 500
TOKENS_A_CHUNK_MAX: Final = 4
SYSTEM_TOKENS, MESSAGE_TOKENS, OPENING_TOKENS = 5, 4, 3
KINDS: Final = ("prose", "code", "cjk", "json")
SENTENCES: Final = (
    "请把下面的句子翻译成英文。",
    "昨天的账单比平时高出三倍,请帮我查一下原因。",
    "我们的服务器放在法兰克福,数据不能离开欧洲。",
    "这个模型一百万个词元要多少钱?",
    "客户要求在周五之前完成全部测试。",
    "缓存命中率从百分之四十提高到了百分之七十二。",
    "如果余额不足,请求会被拒绝,并说明缺少多少。",
    "她每天早上坐地铁上班,路上读一本关于海洋的书。",
    "第二季度的收入增长了十二个百分点。",
    "请用不超过两百字总结会议的要点。",
    "山上的雪还没有融化,湖面上已经有了野鸭。",
    "部署完成后,旧的进程会在二十秒内退出。",
    "昨日の請求書について質問があります。",
    "このモデルの価格は毎週変わりますか。",
    "会議の議事録を三行でまとめてください。",
    "東京は朝から雨が降っていて、電車が遅れています。",
    "在庫が足りない場合は、担当者に連絡してください。",
    "新しい料理の作り方を、材料から順番に教えてください。",
    "응답이 늦어지는 이유를 알려 주세요.",
    "지난달 사용량을 팀별로 나누어 보여 주세요.",
    "내일 아침 회의는 열 시에 시작합니다.",
    "이 문장을 짧고 분명하게 고쳐 주세요.",
)


def _prose() -> Iterator[str]:
    for path in sorted(ROOT.glob("docs/**/*.md")):
        for part in path.read_text(encoding="utf-8").split("\n\n"):
            if len(part) > 60 and not part.startswith(("|", "#", "```")):
                yield part


def _code() -> Iterator[str]:
    sources = (*ROOT.glob("billing/**/*.py"), *ROOT.glob("billing/redis/lua/*.lua"))
    for path in sorted(path for path in sources if "migrations" not in path.parts):
        yield from (p for p in path.read_text(encoding="utf-8").split("\n\n\n") if len(p) > 60)


def _cjk(rng: random.Random) -> Iterator[str]:
    while True:
        yield "".join(rng.choices(SENTENCES, k=rng.randint(1, 5)))


def _json(rng: random.Random, words: list[str]) -> Iterator[str]:
    def value(depth: int) -> Any:
        kind = rng.randrange(7)
        if kind == 0:
            return rng.randrange(10 ** rng.randint(1, 9))
        if kind == 1:
            return round(rng.random() * 1000, rng.randint(1, 6))
        if kind == 2:
            return rng.choice([True, False, None])
        if kind == 3 and depth < 2:
            return [document(depth + 1) for _ in range(rng.randint(1, 3))]
        return " ".join(rng.choices(words, k=rng.randint(1, 4)))

    def document(depth: int) -> dict[str, Any]:
        names = (rng.choice(words) + rng.choice(("", "_id", "_at", "Count")) for _ in range(5))
        return {name: value(depth) for name in names}

    while True:
        yield json.dumps(document(0), indent=rng.choice((None, None, 2)))


def _chunks(tokenizer: Tokenizer, text: str, rng: random.Random) -> list[tuple[str, int]]:
    """As a seller streams it: a few tokens a piece, and never half a character."""
    offsets = tokenizer.encode(text, add_special_tokens=False).offsets
    pieces, start, tokens = [], 0, 0
    wanted = rng.randint(1, TOKENS_A_CHUNK_MAX)
    for at, (_, end) in enumerate(offsets):
        tokens += 1
        is_whole = at + 1 == len(offsets) or offsets[at + 1][0] >= end
        if tokens >= wanted and is_whole and end > start:
            pieces.append((text[start:end], tokens))
            start, tokens, wanted = end, 0, rng.randint(1, TOKENS_A_CHUNK_MAX)
    if start < len(text):
        pieces.append((text[start:], tokens))
    return pieces


def make(tokenizer: Tokenizer) -> list[dict[str, Any]]:
    rng = random.Random(12)
    prose, code = list(_prose()), list(_code())
    words = re.findall(r"[a-z]{4,9}", " ".join(prose))
    cjk, documents = _cjk(rng), _json(rng, words)
    made = []
    for number in range(TEXTS):
        kind = KINDS[number % len(KINDS)]
        source = {
            "prose": lambda: rng.choice(prose),
            "code": lambda: rng.choice(code),
            "cjk": lambda: next(cjk),
            "json": lambda: next(documents),
        }[kind]
        prompt, answer = source()[:PROMPT_CHARACTERS_MAX], source()[:ANSWER_CHARACTERS_MAX]
        count = len(tokenizer.encode(prompt, add_special_tokens=False).ids)
        made.append(
            {
                "kind": kind,
                "prompt": prompt,
                "prompt_tokens": SYSTEM_TOKENS + MESSAGE_TOKENS + OPENING_TOKENS + count,
                "answer": _chunks(tokenizer, answer, rng),
            }
        )
    return made


def main() -> None:
    tokenizer = Tokenizer.from_file(str(Path(sys.argv[1]) / "tokenizer.json"))
    body = json.dumps(make(tokenizer), ensure_ascii=False).encode()
    KEPT.write_bytes(gzip.compress(body, mtime=0))


if __name__ == "__main__":
    main()
