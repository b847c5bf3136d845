"""Jobs as the files that schedulers read, and the alerts on what they report: pure functions from jobs to text."""
