"""`duet_cover`, a method of our own: few tokens that cover the picture and the question (docs/beyond.md)."""
