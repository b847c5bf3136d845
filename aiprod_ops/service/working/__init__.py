"""What a worker does: it takes jobs that wait, renders them, tells how far it is, and takes over from who was lost."""
