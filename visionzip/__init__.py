"""Stage 1: merge redundant visual tokens behind the vision encoder (VisionZip, and DUET's local clusters)."""
