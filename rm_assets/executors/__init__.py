"""Where a task runs. An executor starts the task, passes on what it says while it works, and ends it when told to."""
