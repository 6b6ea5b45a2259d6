"""Evaluation: benchmarks as files, prediction files of any origin, scores that equal the official scorers'.

    scoring      pairs answers with questions and decides on them
    benchmarks   one file each: its annotation, parser and metric
    asking       puts the questions to a model
    running      does it for models, methods and budgets, keeps the answers, and resumes
    judge        lets a chat model decide on the answers about videos
    files        which files a benchmark needs, and whether they are there

Each imports packages above it only; all share `types`, `reading` and `progress`.
"""
