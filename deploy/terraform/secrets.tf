# Names only: what they hold is put there by hand (`gcloud secrets versions add NAME --data-file=FILE`), so that neither
# these files nor Terraform's state know it.
locals {
  secrets = toset(concat([var.config_secret], flatten([for job in var.jobs : values(job.secrets)])))

  # Which identity reads which secret: each only what its jobs need.
  readers = merge([
    for kind in ["checks", "proofs"] : {
      for secret in toset(flatten([
        for job in var.jobs : concat([var.config_secret], values(job.secrets)) if job.restores == (kind == "proofs")
      ])) : "${kind}/${secret}" => { kind = kind, secret = secret }
    }
  ]...)
}

resource "google_secret_manager_secret" "secret" {
  for_each = local.secrets

  secret_id = each.key

  replication {
    auto {}
  }

  depends_on = [google_project_service.needed]
}

resource "google_secret_manager_secret_iam_member" "reader" {
  for_each = local.readers

  secret_id = google_secret_manager_secret.secret[each.value.secret].id
  role      = "roles/secretmanager.secretAccessor"
  member    = google_service_account.job[each.value.kind].member
}
