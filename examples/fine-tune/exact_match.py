#!/usr/bin/env python3
"""Asks a server the questions of a file and counts the answers that are exactly right.

    exact_match.py URL MODEL FILE

FILE has rows {"prompt": ..., "completion": ...}. Case, spaces and a full stop at the end do not matter.
"""
import json
import sys
import urllib.request


def ask(url, model, question):
    body = {"model": model, "temperature": 0, "max_tokens": 24, "messages": [{"role": "user", "content": question}]}
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url + "/v1/chat/completions", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=600) as answer:
        return json.load(answer)["choices"][0]["message"]["content"]


def plain(text):
    return text.strip().rstrip(".").strip().lower()


def main():
    url, model, file = sys.argv[1:]
    with open(file, encoding="utf-8") as rows:
        rows = [json.loads(row) for row in rows if row.strip()]
    right, first = 0, None
    for row in rows:
        answer = ask(url, model, row["prompt"])
        first = first or (row["prompt"], answer)
        right += plain(answer) == plain(row["completion"])
    print(f"{model}: {right} of {len(rows)} answers are right; {first[0]} {first[1].strip()!r}", flush=True)


if __name__ == "__main__":
    main()
