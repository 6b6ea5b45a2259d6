"""Methods of other papers, and controls: one file each, with the pure `select` of its rule and the class that wires
it.

Not here: FlowCut (NeurIPS 2025). Its score accumulates over all layers of the tower, and its tokens leave inside the
tower while it runs; the score of the last layer alone, after a tower that has run in full, is another method.
"""
