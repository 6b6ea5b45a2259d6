"""The GPT-assisted protocol of the three video benchmarks: a chat model decides whether an answer is right.

`protocol` defines request and reply; `cases` pairs questions and predictions, `cache` keeps what was paid
for, `address` and `client` call the endpoint, `run` asks what is missing, `plan` estimates it, `result` sums up. The
command is `duet judge`.
"""
