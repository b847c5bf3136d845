# Three identities, each with the least it needs: checks read, proofs restore copies, the scheduler starts jobs.
resource "google_service_account" "job" {
  for_each = {
    checks = "aiprod-ops: reads, and changes nothing"
    proofs = "aiprod-ops: restores copies, and deletes them"
  }

  account_id   = "aiprod-ops-${each.key}"
  display_name = each.value
}

resource "google_service_account" "scheduler" {
  account_id   = "aiprod-ops-scheduler"
  display_name = "aiprod-ops: starts the scheduled jobs"
}

# Lists instances, backups and operations; no password, no data.
resource "google_project_iam_member" "viewer" {
  for_each = google_service_account.job

  project = var.project
  role    = "roles/cloudsql.viewer"
  member  = each.value.member
}

resource "google_project_iam_custom_role" "clones" {
  role_id     = "aiprodOpsClones"
  title       = "aiprod-ops: clone an instance"
  permissions = ["cloudsql.instances.clone"]
}

resource "google_project_iam_custom_role" "copies" {
  role_id = "aiprodOpsCopies"
  title   = "aiprod-ops: make, restore and delete copies"
  permissions = [
    "cloudsql.instances.create",
    "cloudsql.instances.delete",
    "cloudsql.instances.restoreBackup",
    "cloudsql.instances.update",
  ]
}

resource "google_project_iam_member" "clones" {
  project = var.project
  role    = google_project_iam_custom_role.clones.id
  member  = google_service_account.job["proofs"].member
}

# Of copies only: their names begin with `ops-`.
resource "google_project_iam_member" "copies" {
  project = var.project
  role    = google_project_iam_custom_role.copies.id
  member  = google_service_account.job["proofs"].member

  condition {
    title      = "copies"
    expression = "resource.type == 'sqladmin.googleapis.com/Instance' && resource.name.startsWith('projects/${var.project}/instances/ops-')"
  }
}

resource "google_cloud_run_v2_job_iam_member" "scheduler" {
  for_each = google_cloud_run_v2_job.job

  location = each.value.location
  name     = each.value.name
  role     = "roles/run.invoker"
  member   = google_service_account.scheduler.member
}
