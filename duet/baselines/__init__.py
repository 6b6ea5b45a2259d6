"""Methods of other papers, and controls. Each file has the pure `select` of its rule, and a class for the engine.

Not included: FlowCut (NeurIPS 2025). Its score accumulates over all layers of the tower, and it drops tokens inside the
running tower; the score of the last layer alone, after a full run of the tower, would be another method.
"""
