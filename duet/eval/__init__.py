"""Evaluation: benchmark files, prediction files from any tool, and the official scorers' scores.

    scoring      pairs answers with questions and decides on them
    benchmarks   one file each: its annotation, parser and metric
    asking       puts the questions to a model
    running      runs models, methods and budgets, stores the answers, and resumes
    judge        has a chat model decide on the answers about videos
    files        the files that a benchmark needs, and checks of them

Each imports only packages above it; all share `types`, `reading` and `progress`.
"""
