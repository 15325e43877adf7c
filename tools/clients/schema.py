"""schemathesis over the server's own /openapi.json: no server errors, and every answer as the description says."""

import os
import subprocess
import sys
from pathlib import Path

URL = os.environ["EDGELLM_URL"]
# On a server that asks for keys: who asks (nobody for none), and a copy of the description, which it does not tell to everybody.
KEY = os.environ.get("EDGELLM_KEY")
DESCRIPTION = os.environ.get("EDGELLM_DESCRIPTION", f"{URL}/openapi.json")
EXAMPLES = os.environ.get("EDGELLM_SCHEMA_EXAMPLES", "25")

command = [
    str(Path(sys.executable).with_name("schemathesis")),
    "run",
    DESCRIPTION,
    "--url",
    URL,
    "--checks",
    "all",
    # That what fits the description is always accepted cannot be: whether a prompt fits the context, a grammar can be followed or
    # a template takes a conversation is not to be said in a schema.
    "--exclude-checks",
    "positive_data_acceptance",
    "--phases",
    "examples,coverage,fuzzing",
    "--max-examples",
    EXAMPLES,
    "--seed",
    "1",
    "--request-timeout",
    "60",
    "--no-color",
    "--suppress-health-check",
    "all",
]
if KEY:
    command += ["--header", f"Authorization: Bearer {KEY}"]

sys.exit(subprocess.run(command, check=False).returncode)
