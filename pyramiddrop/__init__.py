"""Stage 2: let the text drop visual tokens inside the language model (PyramidDrop, and DUET's voters)."""
