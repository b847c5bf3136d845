# What `schedule render --format cloud-scheduler` writes as bodies of API calls, as resources.
resource "google_cloud_run_v2_job" "job" {
  for_each = var.jobs

  name                = each.key
  location            = var.location
  labels              = { managed-by = "aiprod-ops" }
  annotations         = { title = each.value.title }
  deletion_protection = false

  template {
    task_count  = 1
    parallelism = 1

    template {
      max_retries     = 0
      timeout         = "${each.value.timeout_s}s"
      service_account = google_service_account.job[each.value.restores ? "proofs" : "checks"].email

      containers {
        image   = var.image
        command = [var.program]
        args    = each.value.args

        env {
          name  = "AIPROD_OPS_STATE"
          value = each.value.state
        }

        dynamic "env" {
          for_each = each.value.secrets

          content {
            name = env.key

            value_source {
              secret_key_ref {
                secret  = google_secret_manager_secret.secret[env.value].secret_id
                version = "latest"
              }
            }
          }
        }

        resources {
          limits = { cpu = "1", memory = "1Gi" }
        }

        volume_mounts {
          name       = "config"
          mount_path = "/etc/aiprod-ops"
        }

        dynamic "volume_mounts" {
          for_each = var.state_share == null ? [] : [var.state_share]

          content {
            name       = "state"
            mount_path = "/var/lib/aiprod-ops"
          }
        }
      }

      volumes {
        name = "config"

        secret {
          secret = google_secret_manager_secret.secret[var.config_secret].secret_id

          items {
            path    = "config.toml"
            version = "latest"
          }
        }
      }

      dynamic "volumes" {
        for_each = var.state_share == null ? [] : [var.state_share]

        content {
          name = "state"

          nfs {
            server = volumes.value.server
            path   = volumes.value.path
          }
        }
      }

      vpc_access {
        egress = "PRIVATE_RANGES_ONLY"

        network_interfaces {
          network    = var.network
          subnetwork = var.subnetwork
        }
      }
    }
  }

  # A job whose secrets cannot be read, or are not there, is refused.
  depends_on = [google_project_service.needed, google_secret_manager_secret_iam_member.reader]
}

resource "google_cloud_scheduler_job" "job" {
  for_each = var.jobs

  name             = each.key
  region           = var.location
  description      = each.value.title
  schedule         = each.value.schedule
  time_zone        = "Etc/UTC"
  attempt_deadline = "180s"

  retry_config {
    retry_count          = 2
    min_backoff_duration = "10s"
    max_backoff_duration = "60s"
  }

  http_target {
    uri         = "https://run.googleapis.com/v2/${google_cloud_run_v2_job.job[each.key].id}:run"
    http_method = "POST"
    headers     = { "Content-Type" = "application/json" }
    body        = base64encode("{}")

    # Google's own APIs take an OAuth token; an OIDC token is for services of one's own.
    oauth_token {
      service_account_email = google_service_account.scheduler.email
      scope                 = "https://www.googleapis.com/auth/cloud-platform"
    }
  }
}
