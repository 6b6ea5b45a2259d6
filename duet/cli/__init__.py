"""The `duet` command: one file per subcommand, imported when it is called."""
