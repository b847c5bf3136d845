# The APIs that the rest needs. They stay on when this is destroyed: others may use them.
resource "google_project_service" "needed" {
  for_each = toset([
    "cloudscheduler.googleapis.com",
    "redis.googleapis.com",
    "run.googleapis.com",
    "secretmanager.googleapis.com",
    "servicenetworking.googleapis.com",
    "sqladmin.googleapis.com",
  ])

  service            = each.key
  disable_on_destroy = false
}
