"""The choice of voting text tokens. Importing this downloads and computes nothing."""
