"""The server backend: models behind an OpenAI-compatible API (vLLM, SGLang, TGI), reached over HTTP."""
