"""Google Cloud SQL through its Admin API (`sqladmin` v1): `admin.CloudSqlAdmin` and what it answers."""
