"""The tasks, one file each: a dataset's prompt, its answers and its metric."""
