"""`duet demo`: a page that compares the answers of all visual tokens and of several methods. See `docs/demo.md`.

`page` (gradio: layout and events) -> `uploads` (an untrusted file -> picture or frames),
`model` (one set of weights, methods attached in turn), `costs` (the cost of a budget, before anything runs) ->
`charts`, `panels`, `markup` (numbers, patches and answers -> HTML), `examples` (pictures of the small world).
"""
