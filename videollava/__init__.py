"""Name of the original repository; the code of Video-LLaVA is `duet/videollava/`."""
