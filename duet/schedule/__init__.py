"""`duet schedule`: measure where a model needs its picture, without labels, and choose the shape of a budget by it.

samples.py     what is asked: questions about pictures and videos, in strata
passes.py      teacher-forced passes of one sample, with shared beginnings; how many prefills they cost
curves.py      divergence against the layer of withdrawal, freezing, entry, per stratum
candidates.py  shapes of an exact budget, and their loss by the curves
choose.py      the best ones measured whole; refusals, intervals, the choice
draw.py        the curves as a figure; files.py: what is written and read back
spread.py      `duet budget spread`: a budget per picture, at an equal mean
"""

#: A budget per picture gives one picture at most this many times the mean.
MOST = 1.5
