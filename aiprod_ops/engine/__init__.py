"""Facts, judge, plan, prove, gate, apply, verify, seal: what makes a runbook run."""
