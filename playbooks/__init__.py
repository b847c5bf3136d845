"""The shipped playbooks: one symptom or disaster a Markdown file."""
