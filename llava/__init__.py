"""Name of the original repository; the code of LLaVA is `duet/llava/`."""
