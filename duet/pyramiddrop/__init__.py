"""Stage 2: text-guided dropping of visual tokens inside the language model (PyramidDrop, and DUET's voters)."""
