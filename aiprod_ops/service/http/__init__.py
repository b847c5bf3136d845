"""What every operation of the API has around it: its caller, its transaction, its problems, its fields and versions."""
