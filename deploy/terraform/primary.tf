# Google takes a designation only of a replica that is there: the second apply makes it.
data "google_sql_database_instances" "there" {
  count = var.dr_replica == "" ? 0 : 1

  project = var.project
}

locals {
  there = flatten([for found in data.google_sql_database_instances.there : found.instances[*].name])
}

resource "google_sql_database_instance" "primary" {
  name                = var.database.name
  database_version    = var.database.version
  region              = var.database.region
  deletion_protection = var.database.deletion_protection # of Terraform; Google's own is below

  settings {
    edition                     = var.database.edition
    tier                        = var.database.tier
    availability_type           = var.database.availability
    disk_type                   = "PD_SSD"
    disk_size                   = var.database.disk_gb
    disk_autoresize             = var.database.disk_grows
    deletion_protection_enabled = var.database.deletion_protection

    backup_configuration {
      enabled                        = true
      start_time                     = var.database.backup_start
      point_in_time_recovery_enabled = true
      transaction_log_retention_days = var.database.log_days

      backup_retention_settings {
        retained_backups = var.database.retained_backups
        retention_unit   = "COUNT"
      }
    }

    ip_configuration {
      ipv4_enabled    = var.database.public_address
      private_network = data.google_compute_network.main.id
      ssl_mode        = var.database.ssl_mode
    }

    maintenance_window {
      day          = var.database.maintenance.day
      hour         = var.database.maintenance.hour
      update_track = "stable"
    }

    insights_config {
      query_insights_enabled  = var.database.insights
      query_string_length     = 4500
      record_application_tags = true
      record_client_address   = false
    }

    dynamic "database_flags" {
      for_each = var.database.flags

      content {
        name  = database_flags.key
        value = database_flags.value
      }
    }
  }

  dynamic "replication_cluster" {
    for_each = contains(local.there, var.dr_replica) ? [var.dr_replica] : []

    content {
      failover_dr_replica_name = "${var.project}:${replication_cluster.value}"
    }
  }

  lifecycle {
    ignore_changes = [settings[0].disk_size] # it grows
  }

  depends_on = [google_service_networking_connection.services]
}
