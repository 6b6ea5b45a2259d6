"""The one place of the package's version number."""

VERSION = "0.1.0"
