"""The GPT-assisted protocol of the three video benchmarks: a chat model decides whether an answer is right.

`protocol` is what is sent and what a reply means, `client` calls the endpoint, `cache` keeps what was paid for, `run`
brings questions, cache and client together, `result` sums up. The command is `duet judge`.
"""
