data "google_compute_network" "main" {
  name = var.network
}

# Google's side of the network, where instances get their private addresses: all regions share it.
resource "google_compute_global_address" "services" {
  name          = "${var.database.name}-services"
  purpose       = "VPC_PEERING"
  address_type  = "INTERNAL"
  prefix_length = 16
  network       = data.google_compute_network.main.id
}

resource "google_service_networking_connection" "services" {
  network                 = data.google_compute_network.main.id
  service                 = "servicenetworking.googleapis.com"
  reserved_peering_ranges = [google_compute_global_address.services.name]

  depends_on = [google_project_service.needed]
}
