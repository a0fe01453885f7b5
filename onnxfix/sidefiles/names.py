"""What the files are called: all that needs to be known where none of them lies beside a model."""

GENAI = "genai_config.json"
TRITON = "config.pbtxt"
