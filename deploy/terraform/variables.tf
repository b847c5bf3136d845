# All values come from service.toml and the configuration:
#   aiprod-ops schedule render --format terraform --target NAME --image IMAGE --output deploy/terraform
# writes NAME.auto.tfvars.json beside this file. No variable has a default, so that nothing is decided in two places.

variable "project" {
  description = "Google Cloud project of everything here."
  type        = string
}

variable "location" {
  description = "Region of the scheduled checks and of Memorystore."
  type        = string
}

variable "network" {
  description = "VPC network that the instances get their private addresses in; it has to be there."
  type        = string
}

variable "subnetwork" {
  description = "Subnetwork, in the location, that the scheduled checks reach the instances from."
  type        = string
}

variable "database" {
  description = "The Cloud SQL primary."
  type = object({
    name                = string
    version             = string
    edition             = string
    tier                = string
    availability        = string
    region              = string
    disk_gb             = number
    disk_grows          = bool
    backup_start        = string
    retained_backups    = number
    log_days            = number
    maintenance         = object({ day = number, hour = number })
    insights            = bool
    deletion_protection = bool
    public_address      = bool
    ssl_mode            = string
    flags               = map(string)
  })

  validation {
    condition     = contains(["REGIONAL", "ZONAL"], var.database.availability)
    error_message = "The availability is REGIONAL or ZONAL."
  }
}

variable "replicas" {
  description = "Region of each replica, by its name."
  type        = map(string)
}

variable "dr_replica" {
  description = "The replica that a disaster promotes, of another region and the edition ENTERPRISE_PLUS; empty for none."
  type        = string
}

variable "redis" {
  description = "Memorystore for Redis."
  type = object({
    name      = string
    version   = string
    tier      = string
    memory_gb = number
  })
}

variable "image" {
  description = "Container image that has aiprod-ops."
  type        = string
}

variable "program" {
  description = "The program within the image."
  type        = string
}

variable "config_secret" {
  description = "Secret that holds config.toml."
  type        = string
}

variable "state_share" {
  description = "NFS share that keeps the jobs' state; null for none: then it ends with each."
  type        = object({ server = string, path = string })
  nullable    = true
}

variable "jobs" {
  description = "What runs when, by the job's name; its secrets by the variable that holds them."
  type = map(object({
    title     = string
    args      = list(string)
    schedule  = string
    timeout_s = number
    secrets   = map(string)
    state     = string
    restores  = bool
  }))
}
