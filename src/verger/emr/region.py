"""Where photos may go: AWS regions inside the European Union."""

from __future__ import annotations

import re

from verger.errors import ConfigError

#: Frankfurt, Stockholm, Milan, Aragon, Ireland, Paris. London (eu-west-2) and Zurich
#: (eu-central-2) are called "eu" and are not in the Union.
EU_REGIONS = ("eu-central-1", "eu-north-1", "eu-south-1", "eu-south-2", "eu-west-1", "eu-west-3")

#: Where CloudFormation can make no alarm for the bill.
WITHOUT_ALARM = ("eu-north-1", "eu-south-1", "eu-south-2")


def check_region(region: str, *, allow: bool) -> None:
    """Refuse a region outside the European Union, unless it is allowed.

    Parameters
    ----------
    region : str
        Such as ``eu-west-3``.
    allow : bool
        Let any region pass.

    Raises
    ------
    ConfigError
        Also where it is no region's name at all.
    """
    if not re.fullmatch(r"[a-z]{2,}(-[a-z]+)+-\d", region):
        raise ConfigError(f"region={region!r} is no AWS region; in the EU: {', '.join(EU_REGIONS)}")
    if region not in EU_REGIONS and not allow:
        raise ConfigError(
            f"region={region} is not in the European Union: photos would leave it; "
            f"choose one of {', '.join(EU_REGIONS)}, or --allow-region"
        )
