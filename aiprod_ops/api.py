"""What a runbook file imports, and all it may import."""

from aiprod_ops.actions.adding import add_replica, remove_replica
from aiprod_ops.actions.backup_keeping import (
    NewBackup,
    OldBackup,
    database_size,
    discard_backup,
    labelled,
    newest_backup,
    remove_backup,
    shown_size,
    take_backup,
)
from aiprod_ops.actions.backup_promise import backup_promise
from aiprod_ops.actions.build_trials import served, try_builds
from aiprod_ops.actions.figures import figures, read_source, record_figures, recorded_figures, writable
from aiprod_ops.actions.index_builds import (
    LOCK,
    LONGEST,
    Build,
    build_estimate,
    build_of,
    create_index,
    creation,
    drop_index,
    drop_invalid_index,
    invariants,
    is_built,
)
from aiprod_ops.actions.index_readings import (
    USAGE,
    index_bloat,
    index_damage,
    index_usage,
    install_amcheck,
    lacking_rows,
    read_copy,
    trees,
    unmended,
)
from aiprod_ops.actions.index_repairs import rebuild_index, remove_index, restore_index
from aiprod_ops.actions.index_trials import try_repairs
from aiprod_ops.actions.instance_promise import instance_promise
from aiprod_ops.actions.job_failures import fail_jobs
from aiprod_ops.actions.job_rehearsal import lost_jobs
from aiprod_ops.actions.job_requeues import became as became_words
from aiprod_ops.actions.job_requeues import has_workers, job_queue, knows_job, open_jobs, requeue_jobs, return_jobs
from aiprod_ops.actions.job_requeues import still as jobs_still
from aiprod_ops.actions.later import Later, later
from aiprod_ops.actions.measurements import choices
from aiprod_ops.actions.migrated import migrated
from aiprod_ops.actions.moments import Moment, is_same, one_moment
from aiprod_ops.actions.plan_flips import keep_flips, known_flips
from aiprod_ops.actions.preflight import ready_to_build
from aiprod_ops.actions.refusals import known_refusals
from aiprod_ops.actions.repairs import Basis, repairs, revision_of, still_unused
from aiprod_ops.actions.replication_readings import settings_of, topology
from aiprod_ops.actions.row_control import row_control
from aiprod_ops.actions.switching import Move as SwitchMove
from aiprod_ops.actions.switching import (
    Takeover,
    barred,
    fail_over,
    fail_over_zone,
    rejoin,
    rejoin_first,
    repoint,
    switch_back,
    switch_over,
)
from aiprod_ops.actions.wal_keeping import not_kept, segment_of, unkept_since
from aiprod_ops.actions.webhook_readings import approval_time, has_webhooks, knows_event
from aiprod_ops.actions.webhook_readings import backlog as webhook_backlog
from aiprod_ops.actions.webhook_readings import disabled as disabled_endpoints
from aiprod_ops.actions.webhook_readings import ended as ended_deliveries
from aiprod_ops.actions.webhook_readings import knows as knows_endpoint
from aiprod_ops.actions.webhook_readings import moment_of as moment_of
from aiprod_ops.actions.webhook_rehearsal import HOST as REHEARSAL_HOST
from aiprod_ops.actions.webhook_rehearsal import failed_deliveries
from aiprod_ops.actions.webhook_replays import Unsent, replay_wave, replayed, take_back
from aiprod_ops.actions.webhook_replays import told as replayed_words
from aiprod_ops.domain.advice.indexes import Advice, Budget, Candidate, NewIndex, advise
from aiprod_ops.domain.advice.refusals import Refusal, refused
from aiprod_ops.domain.audits import Promise as BackupPromise
from aiprod_ops.domain.audits import audit
from aiprod_ops.domain.backups import Arrangement, Backup, Origin, ahead, of_instance, whole
from aiprod_ops.domain.backups import State as BackupState
from aiprod_ops.domain.catalogue.drift import Migrated, drift, drift_scope
from aiprod_ops.domain.catalogue.faults import KINDS, Existing, Fault
from aiprod_ops.domain.catalogue.indexes import Catalogue, Thresholds
from aiprod_ops.domain.catalogue.inspections import Inspection
from aiprod_ops.domain.catalogue.judgement import faults as index_faults
from aiprod_ops.domain.catalogue.judgement import ordered
from aiprod_ops.domain.catalogue.narrow import faults as narrow_indexes
from aiprod_ops.domain.catalogue.usage import UsageSnapshot
from aiprod_ops.domain.counters import NOT_SHOWN, Counters, StatementsSnapshot, read_snapshot
from aiprod_ops.domain.failover import Candidate as FailoverCandidate
from aiprod_ops.domain.failover import Loss
from aiprod_ops.domain.failover import ends as move_ends
from aiprod_ops.domain.failover import loss as failover_loss
from aiprod_ops.domain.failover import planned as switchover_candidates
from aiprod_ops.domain.failover import unplanned as failover_candidates
from aiprod_ops.domain.figures import Figures, same_moment
from aiprod_ops.domain.figures import between as between_moments
from aiprod_ops.domain.findings import Finding, Status
from aiprod_ops.domain.instances import SETTINGS, Setups
from aiprod_ops.domain.instances import drift as instance_drift
from aiprod_ops.domain.instances import flags as instance_flags
from aiprod_ops.domain.plans import Action, Estimate, Plan
from aiprod_ops.domain.proofs import Comparison, Proof, Sampled
from aiprod_ops.domain.replays import LEAST_SENT, Backlog, Ended, Replayed, Wave, by_age, by_why, refusing
from aiprod_ops.domain.replays import Disabled as DisabledEndpoint
from aiprod_ops.domain.replays import chosen as chosen_deliveries
from aiprod_ops.domain.replays import planned as replay_waves
from aiprod_ops.domain.replication import Limits as ReplicationLimits
from aiprod_ops.domain.replication import Topology, lower_settings
from aiprod_ops.domain.replication import judge as judge_replication
from aiprod_ops.domain.retention import Retention, prunable
from aiprod_ops.domain.retention import staying as staying_backups
from aiprod_ops.domain.revisions import Declared, alembic_revision
from aiprod_ops.domain.schema import Key, Name, Schema, Table, TableSize
from aiprod_ops.domain.statements import Logged, Statement, Workload
from aiprod_ops.domain.stuck_jobs import Limits as JobLimits
from aiprod_ops.domain.stuck_jobs import OpenJob, StuckJobs, Trouble, silence, sorted_out
from aiprod_ops.domain.stuck_jobs import Queue as JobQueue
from aiprod_ops.domain.stuck_jobs import batches as job_batches
from aiprod_ops.domain.webhooks import EVENTS as WEBHOOK_EVENTS
from aiprod_ops.domain.windows import Window, delta, since_reset
from aiprod_ops.engine.last_proofs import (
    LastProof,
    disproved_backups,
    is_sealed,
    last_refusal,
    said_last,
    verified_backups,
)
from aiprod_ops.engine.runbook import (
    Amount,
    Context,
    Copy,
    Kind,
    Lab,
    Measured,
    Moving,
    NoParams,
    Runbook,
    limited,
    promise,
)  # fmt: skip
from aiprod_ops.errors import Failed, OpsError, PermissionMissing, Refused, TimedOut, Unreachable, UsageError
from aiprod_ops.ports import Database, NewReplica, Sample, Zoned
from aiprod_ops.units import Bytes, Cores, Milliseconds, Ratio, Seconds, show

__all__ = [
    "KINDS", "LEAST_SENT", "LOCK", "LONGEST", "NOT_SHOWN", "REHEARSAL_HOST", "SETTINGS", "USAGE", "WEBHOOK_EVENTS",
    "Action", "Advice", "Amount", "Arrangement", "Backlog", "Backup", "BackupPromise", "BackupState", "Basis",
    "Budget", "Build", "Bytes", "Candidate", "Catalogue", "Comparison", "Context", "Copy", "Cores", "Counters",
    "Database", "Declared", "DisabledEndpoint", "Ended", "Estimate", "Existing", "Failed", "FailoverCandidate",
    "Fault", "Figures", "Finding", "Inspection", "JobLimits", "JobQueue", "Key", "Kind", "Lab", "LastProof", "Later",
    "Logged", "Loss", "Measured", "Migrated", "Milliseconds", "Moment", "Moving", "Name", "NewBackup", "NewIndex",
    "NewReplica", "NoParams", "OldBackup", "OpenJob", "OpsError", "Origin", "PermissionMissing", "Plan", "Proof",
    "Ratio", "Refusal", "Refused", "Replayed", "ReplicationLimits", "Retention", "Runbook", "Sample", "Sampled",
    "Schema", "Seconds", "Setups", "Statement", "StatementsSnapshot", "Status", "StuckJobs", "SwitchMove", "Table",
    "TableSize", "Takeover", "Thresholds", "TimedOut", "Topology", "Trouble", "Unreachable", "Unsent", "UsageError",
    "UsageSnapshot", "Wave", "Window", "Workload", "Zoned", "add_replica", "advise", "ahead", "alembic_revision",
    "approval_time", "audit", "backup_promise", "barred", "became_words", "between_moments", "build_estimate",
    "build_of", "by_age", "by_why", "choices", "chosen_deliveries", "create_index", "creation", "database_size",
    "delta", "disabled_endpoints", "discard_backup", "disproved_backups", "drift", "drift_scope", "drop_index",
    "drop_invalid_index", "ended_deliveries", "fail_jobs", "fail_over", "fail_over_zone", "failed_deliveries",
    "failover_candidates", "failover_loss", "figures", "has_webhooks", "has_workers", "index_bloat", "index_damage",
    "index_faults", "index_usage", "install_amcheck", "instance_drift", "instance_flags", "instance_promise",
    "invariants", "is_built", "is_same", "is_sealed", "job_batches", "job_queue", "jobs_still", "judge_replication",
    "keep_flips", "known_flips", "known_refusals", "knows_endpoint", "knows_event", "knows_job", "labelled",
    "lacking_rows", "last_refusal", "later", "limited", "lost_jobs", "lower_settings", "migrated", "moment_of",
    "move_ends", "narrow_indexes", "newest_backup", "not_kept", "of_instance", "one_moment", "open_jobs", "ordered",
    "promise", "prunable", "read_copy", "read_snapshot", "read_source", "ready_to_build", "rebuild_index",
    "record_figures", "recorded_figures", "refused", "refusing", "rejoin", "rejoin_first", "remove_backup",
    "remove_index", "remove_replica", "repairs", "replay_wave", "replay_waves", "replayed", "replayed_words",
    "repoint", "requeue_jobs", "restore_index", "return_jobs", "revision_of", "row_control", "said_last",
    "same_moment", "segment_of", "served", "settings_of", "show", "shown_size", "silence", "since_reset",
    "sorted_out", "staying_backups", "still_unused", "switch_back", "switch_over", "switchover_candidates",
    "take_back", "take_backup", "topology", "trees", "try_builds", "try_repairs", "unkept_since", "unmended",
    "verified_backups", "webhook_backlog", "whole", "writable",
]  # fmt: skip
