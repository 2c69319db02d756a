"""The programs' command lines, one file a group of commands."""
