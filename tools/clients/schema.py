"""schemathesis over the server's own /openapi.json: no server errors, and every answer as the description says."""

import os
import subprocess
import sys
from pathlib import Path

URL = os.environ["EDGELLM_URL"]
EXAMPLES = os.environ.get("EDGELLM_SCHEMA_EXAMPLES", "25")

command = [
    str(Path(sys.executable).with_name("schemathesis")),
    "run",
    f"{URL}/openapi.json",
    "--url",
    URL,
    "--checks",
    "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,response_headers_conformance",
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
sys.exit(subprocess.run(command, check=False).returncode)
