"""`duet serve`: an OpenAI-compatible server for both stages, safe by default. See `docs/serve.md`.

The path of a request: `app` (HTTP, key), `admission` (a slot) -> `preparing`: `schema` (the body), `media`, `fetch`,
`video` (pictures and frames), `prompts` (the family's prompt format) -> `gathering` (the queue) -> `worker` (the one
thread that owns the model) -> `model` (a batch), `rows` (each answer in it) -> `answers` (the response).
"""
