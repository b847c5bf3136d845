# Read replicas, and the DR replica among them. Flags are the primary's: a standby must not have some of them lower.
resource "google_sql_database_instance" "replica" {
  for_each = var.replicas

  name                 = each.key
  master_instance_name = google_sql_database_instance.primary.name
  database_version     = var.database.version
  region               = each.value
  deletion_protection  = var.database.deletion_protection

  settings {
    edition                     = var.database.edition
    tier                        = var.database.tier
    availability_type           = "ZONAL"
    disk_type                   = "PD_SSD"
    disk_size                   = var.database.disk_gb
    disk_autoresize             = var.database.disk_grows
    deletion_protection_enabled = var.database.deletion_protection

    ip_configuration {
      ipv4_enabled    = var.database.public_address
      private_network = data.google_compute_network.main.id
      ssl_mode        = var.database.ssl_mode
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

  lifecycle {
    ignore_changes = [settings[0].disk_size]

    precondition {
      condition     = each.key != var.dr_replica || each.value != var.database.region
      error_message = "The DR replica has to be in another region than the primary."
    }
  }
}
