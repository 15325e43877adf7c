"""Render chat templates as transformers does, for the expected strings of our tests.

    python tools/reference/chat_templates.py testdata/chat_templates
    python tools/reference/chat_templates.py FOLDER --gguf name=model.gguf

FOLDER holds `*.jinja` and takes `expected.json`; the conversations are testdata/chat_templates/conversations.json.
`--gguf` adds the template of a GGUF file under a name. Needs transformers (5.23.0 made what is committed) and jinja2;
for `--gguf` also the `gguf` package. "Today" is 2026-01-02.
"""

import argparse
import datetime
import json
from pathlib import Path

from transformers.utils import chat_template_utils

CONVERSATIONS = Path(__file__).parents[2] / "testdata" / "chat_templates" / "conversations.json"
BOS, EOS = "<s>", "</s>"


class FixedDay(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2026, 1, 2, 3, 4, 5)


def render(template, case):
    try:
        texts, _ = chat_template_utils.render_jinja_template(
            conversations=[case["messages"]],
            tools=case["tools"],
            chat_template=template,
            add_generation_prompt=case["add_generation_prompt"],
            bos_token=BOS,
            eos_token=EOS,
        )
        return {"text": texts[0]}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


def gguf_template(path):
    from gguf import GGUFReader

    return GGUFReader(path).fields["tokenizer.chat_template"].contents()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--gguf", action="append", default=[], metavar="NAME=FILE")
    arguments = parser.parse_args()
    chat_template_utils.datetime = FixedDay

    templates = {path.stem: path.read_text(encoding="utf-8") for path in sorted(arguments.folder.glob("*.jinja"))}
    for pair in arguments.gguf:
        name, path = pair.split("=", 1)
        templates[name] = gguf_template(path)
    cases = json.loads(CONVERSATIONS.read_text(encoding="utf-8"))
    expected = {
        name: {case["name"]: render(template, case) for case in cases} for name, template in templates.items()
    }
    text = json.dumps(expected, ensure_ascii=False, indent=1)
    (arguments.folder / "expected.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
