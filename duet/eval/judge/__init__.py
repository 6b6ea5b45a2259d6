"""The GPT-assisted protocol of the three video benchmarks: a chat model decides whether an answer is right.

`protocol` is what is sent and what a reply means; `cases` pairs questions and predictions, `cache` keeps what was paid
for, `address` and `client` call the endpoint, `run` asks what is missing, `plan` foresees it, `result` sums up. The
command is `duet judge`.
"""
