resource "google_redis_instance" "cache" {
  name                    = var.redis.name
  region                  = var.location
  tier                    = var.redis.tier
  redis_version           = var.redis.version
  memory_size_gb          = var.redis.memory_gb
  authorized_network      = data.google_compute_network.main.id
  connect_mode            = "PRIVATE_SERVICE_ACCESS"
  auth_enabled            = true
  transit_encryption_mode = "SERVER_AUTHENTICATION"

  maintenance_policy {
    weekly_maintenance_window {
      day = local.days[var.database.maintenance.day - 1]

      start_time {
        hours   = var.database.maintenance.hour
        minutes = 0
        seconds = 0
        nanos   = 0
      }
    }
  }

  depends_on = [google_service_networking_connection.services]
}

locals {
  days = ["MONDAY", "TUESDAY", "WEDNESDAY", "THURSDAY", "FRIDAY", "SATURDAY", "SUNDAY"]
}
