"""`duet serve`: an OpenAI-compatible server for both stages, safe by default. See `docs/serve.md`.

A request's way: `app` (HTTP, key), `admission` (a place) -> `preparing`: `schema` (the body), `media`, `fetch`, `video`
(pictures and frames), `prompts` (the family's own conversation) -> `gathering` (the queue) -> `worker` (the one thread
that owns the model) -> `model` (a batch), `rows` (every answer of it for itself) -> `answers` (what the client gets).
"""
