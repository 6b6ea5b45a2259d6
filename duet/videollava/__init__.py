"""Video-LLaVA: its adapter, its processor without torchvision, and both checkpoint layouts."""
