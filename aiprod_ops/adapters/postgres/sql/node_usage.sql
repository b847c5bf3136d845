-- Since when this node counts (a crash resets pg_stat_bgwriter, pg_stat_reset() the database), and who streams from it.
-- pg_receivewal and base backups replay nothing; a logical subscriber is no standby. Rows that are hidden are told with an empty name.
SELECT /* aiprod-ops */
       pg_is_in_recovery() AS is_standby,
       greatest((SELECT stats_reset FROM pg_stat_database WHERE datname = current_database()),
                (SELECT stats_reset FROM pg_stat_bgwriter)) AS since,
       CASE WHEN pg_is_in_recovery() THEN
            coalesce(substring((SELECT setting FROM pg_settings WHERE name = 'primary_conninfo') FROM 'application_name\s*=\s*''?([^\s'']+)'),
                     nullif(current_setting('cluster_name'), ''), 'walreceiver') ELSE '' END AS receiver,
       ARRAY(SELECT coalesce(r.application_name, '')
               FROM pg_stat_replication r LEFT JOIN pg_replication_slots o ON o.active_pid = r.pid
              WHERE (r.state IS NULL OR (r.state IN ('streaming', 'catchup') AND r.replay_lsn IS NOT NULL))
                AND o.slot_type IS DISTINCT FROM 'logical'
              ORDER BY 1) AS standbys
