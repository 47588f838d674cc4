"""The command line: options to keyword arguments, results to the terminal, errors to exit codes.

Exit codes: 0 done, 1 failed, 2 used wrongly, 130 and 143 ended by Ctrl-C or SIGTERM. Results go to
stdout, all else to stderr. One file holds the commands of a group; nothing heavy is imported before
a command runs.
"""

from verger.cli.entry import app, main

__all__ = ["app", "main"]
