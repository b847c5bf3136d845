"""Whether a role may change the rows that are to be changed."""

from collections.abc import Mapping

from aiprod_ops.errors import PermissionMissing
from aiprod_ops.ports import Database

_LACKS = """
select t.name, t.rights, quote_ident(current_user) as role
from unnest(%(tables)s::text[], %(rights)s::text[]) as t (name, rights),
     unnest(string_to_array(t.rights, ', ')) as r (one)
where to_regclass(t.name) is not null and not has_table_privilege(t.name, r.one)
group by t.name, t.rights order by t.name
/* aiprod-ops: rights on rows that are missing */
"""


def require_rights(database: Database, rights: Mapping[str, str]) -> None:
    """Of tables by their names, such as `{"jobs": "SELECT, UPDATE"}`. Raises PermissionMissing with the GRANTs."""
    lacks = database.query(_LACKS, {"tables": list(rights), "rights": list(rights.values())})
    if lacks:
        raise PermissionMissing(
            f"{lacks[0]['role']} may not change {', '.join(row['name'] for row in lacks)}",
            hint=" ".join(f"GRANT {row['rights']} ON {row['name']} TO {row['role']};" for row in lacks),
        )
