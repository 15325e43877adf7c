"""Makes the files of this folder: pip install pyarrow==26.0.1 fastparquet==2026.9.0, then python make.py"""

import fastparquet
import pandas
import pyarrow as pa
import pyarrow.parquet as pq

TEXTS = [
    "One.",
    "Zwei: äöü, 漢字, 🦀.\n\nA second paragraph.",
    "One.",
    "Three, which is longer. " * 20,
    "Four",
]
ids = list(range(len(TEXTS)))


def table(**columns):
    return pa.table({"id": pa.array(ids, pa.int64()), **columns, "score": pa.array([0.5] * 5, pa.float64())})


text = table(text=pa.array(TEXTS, pa.string()))
pq.write_table(text, "snappy.parquet", row_group_size=3)
pq.write_table(text, "zstd-v2.parquet", compression="zstd", data_page_version="2.0", data_page_size=64,
               use_dictionary=False)
pq.write_table(text, "gzip-v2.parquet", compression="gzip", data_page_version="2.0", row_group_size=2)
pq.write_table(text, "plain.parquet", compression="none", use_dictionary=False, data_page_size=16)
pq.write_table(text, "dictionary.parquet", compression="none", row_group_size=4)
pq.write_table(text, "brotli.parquet", compression="brotli")
pq.write_table(text, "delta.parquet", use_dictionary=False, column_encoding={"text": "DELTA_BYTE_ARRAY"})
required = pa.schema([pa.field("text", pa.large_string(), nullable=False)])
pq.write_table(pa.table({"text": TEXTS}, schema=required), "required.parquet")
nested = table(text=pa.array([[t] for t in TEXTS], pa.list_(pa.string())),
               pair=pa.array([{"a": t, "b": 1} for t in TEXTS]), body=pa.array(TEXTS))
pq.write_table(nested, "nested.parquet")
pq.write_table(table(text=pa.array(TEXTS[:3] + [None] + TEXTS[3:4])), "missing.parquet", row_group_size=2)
fastparquet.write("fastparquet.parquet", pandas.DataFrame({"n": ids, "text": TEXTS}), compression="GZIP",
                  row_group_offsets=[0, 2], object_encoding="utf8")
