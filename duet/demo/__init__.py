"""`duet demo`: a page on which all visual tokens and some methods answer side by side. See `docs/demo.md`.

`page` (gradio: what is where, which event calls what) -> `uploads` (a file of a stranger -> picture or frames),
`model` (the one set of weights, methods attached in turn), `costs` (what a budget costs, before anything runs) ->
`charts`, `panels`, `markup` (numbers, patches and answers -> HTML), `examples` (pictures of the small world).
"""
