output "primary_address" {
  description = "Private address of the primary: what the DSNs in config.toml name."
  value       = google_sql_database_instance.primary.private_ip_address
}

output "replica_addresses" {
  description = "Private address of each replica, by its name."
  value       = { for name, replica in google_sql_database_instance.replica : name => replica.private_ip_address }
}

output "redis" {
  description = "Host and port of Redis; its AUTH string is in Terraform's state, and shown by `gcloud redis instances get-auth-string`."
  value       = "${google_redis_instance.cache.host}:${google_redis_instance.cache.port}"
}

output "secrets_to_fill" {
  description = "Secrets that need a version before the jobs can start."
  value       = sort(keys(google_secret_manager_secret.secret))
}
