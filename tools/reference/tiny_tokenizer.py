"""Makes the small tokenizer and chat template of testdata/models/qwen2-tiny and their golden encodings.

    python tools/reference/tiny_tokenizer.py [--out testdata/models/qwen2-tiny]

A byte-level BPE of Qwen2's kind (NFC, Qwen2's pre-tokenizer, added special tokens after the vocabulary): 256 bytes, 41
merges learnt from the sentences below, 3 special tokens, 300 in all. The golden file holds what the `tokenizers` and
`transformers` packages themselves answer.
"""

import argparse
import json
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

SENTENCES = [
    "The small boat left the harbour before the sun was up, and the sea was calm.",
    "Where there is rain there are umbrellas; where there is wind there are none left.",
    "She counted the stones: one, two, three, and then she lost the thread.",
    "In the morning they walked to the other side of the hill and then the river.",
    "The engine reads the file, checks the header and then the tensors, one after the other.",
]
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
END_OF_TEXT, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
N_MERGES = 41

CHAT_TEMPLATE = """\
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n' }}{%- endif %}
    {{- 'Tools:' }}
    {%- for tool in tools %}{{- '\\n' + (tool | tojson) }}{%- endfor %}
    {{- '<|im_end|>\\n' }}
{%- elif messages[0].role != 'system' %}
    {{- '<|im_start|>system\\nYou are a small test model.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role not in ['system', 'user', 'assistant'] %}
        {{- raise_exception('Unknown role: ' + message.role) }}
    {%- endif %}
    {%- if not (tools and loop.first and message.role == 'system') %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content.strip() + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""

TEXTS = [
    "",
    " ",
    "the",
    "The engine reads the file.",
    "  two  spaces, then a tab\tand a newline\nand two\n\nand \r\n both",
    "It's they'll WE'RE don't",
    "12345 and 3.14",
    "naïve café, Ελληνικά, 日本語, русский",
    "\U0001f600 \U0001f469\u200d\U0001f680 \u00a0nbsp",
    "fn main() { println!(\"{}\", 1 + 2); }",
    "<|im_start|>user\nthe boat<|im_end|>\n<|im_start|>assistant\n",
    "broken special <|im_st art|> and <|endoftext|>",
    "trailing space ",
    "\x00\x01\x7f",
]
DECOMPOSED = "cafe\u0301"  # NFC changes it: only a tokenizer that normalizes agrees

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "tide",
            "description": "High water at a place",
            "parameters": {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]},
        },
    }
]
CHATS = [
    {"messages": [{"role": "user", "content": "  Where is the boat? \n"}], "add_generation_prompt": True},
    {"messages": [{"role": "user", "content": "Where is the boat?"}], "add_generation_prompt": False},
    {
        "messages": [
            {"role": "system", "content": "Answer in one word."},
            {"role": "user", "content": "Where is the boat?"},
            {"role": "assistant", "content": "Harbour."},
            {"role": "user", "content": "Größe? 日本"},
        ],
        "add_generation_prompt": True,
    },
    {
        "messages": [{"role": "system", "content": "Use tools."}, {"role": "user", "content": "When is high water?"}],
        "tools": TOOLS,
        "add_generation_prompt": True,
    },
]


def train():
    tokenizer = Tokenizer(models.BPE(byte_fallback=False))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    tokenizer.post_processor = processors.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    trainer = trainers.BpeTrainer(
        vocab_size=256 + N_MERGES, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in (END_OF_TEXT, START, END)])
    assert tokenizer.get_vocab_size() == 256 + N_MERGES + 3
    return tokenizer


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("testdata/models/qwen2-tiny"))
    out = parser.parse_args().out

    tokenizer = train()
    tokenizer.save(str(out / "tokenizer.json"))
    config = {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": {
            str(tokenizer.token_to_id(t)): {
                "content": t,
                "lstrip": False,
                "normalized": False,
                "rstrip": False,
                "single_word": False,
                "special": True,
            }
            for t in (END_OF_TEXT, START, END)
        },
        "additional_special_tokens": [START, END],
        "bos_token": None,
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": END,
        "model_max_length": 256,
        "pad_token": END_OF_TEXT,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": None,
    }
    (out / "tokenizer_config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n")

    loaded = PreTrainedTokenizerFast.from_pretrained(out)
    encodings = []
    for text in [*TEXTS, DECOMPOSED]:
        ids = loaded(text).input_ids
        assert ids == tokenizer.encode(text).ids
        entry = {"text": text, "ids": ids, "decoded": loaded.decode(ids, skip_special_tokens=False)}
        if entry["decoded"] != text:
            entry["normalized"] = True
        encodings.append(entry)
    assert [e["text"] for e in encodings if e.get("normalized")] == [DECOMPOSED]
    chats = []
    for chat in CHATS:
        rendered = loaded.apply_chat_template(
            chat["messages"],
            tools=chat.get("tools"),
            add_generation_prompt=chat["add_generation_prompt"],
            tokenize=False,
        )
        chats.append({**chat, "rendered": rendered, "ids": loaded(rendered).input_ids})
    golden = {"encodings": encodings, "chats": chats}
    (out / "tokenizer_golden.json").write_text(json.dumps(golden, indent=1, ensure_ascii=True) + "\n")
    print(f"{len(encodings)} texts, {len(chats)} chats, {tokenizer.get_vocab_size()} tokens")


if __name__ == "__main__":
    main()
