"""The documents: plain Markdown from templates, runbooks, playbooks, promises and sealed evidence."""
