"""The tool that tests of corrections speak about."""

TOOL = {"type": "function", "function": {"name": "order", "description": "", "parameters": {
    "type": "object", "properties": {"drink": {"type": "string"}}, "required": ["drink"]}}}  # fmt: skip
