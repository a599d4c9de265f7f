"""`qcrs-jax verify`: the record of collapse in a sidecar, compared with itself and with the request."""

from collections.abc import Iterator

from qcrs_jax.results.collapse import CLOSE, Collapse


def check_collapse(sidecar: dict, troubles: list) -> Iterator[str]:
    """Yields a line on the record of collapse, if there is one. Errors are appended to `troubles`.

    The end of a bracket is accepted as a part of the request, whoever chose it: a certificate is valid for any.
    """
    recorded = sidecar.get("provenance", {}).get("collapse")
    if not recorded or not recorded["levels"]:
        return
    lost_at = Collapse.of(recorded).lost_at
    if lost_at != recorded.get("lost_at"):
        troubles.append(
            f"its record of collapse says that accuracy is lost at {recorded.get('lost_at')}, and by its levels it is "
            f"lost at {lost_at}"
        )
    end = sidecar.get("request", {}).get("search", {}).get("sigma_upper")
    if recorded.get("ends_bracket") and lost_at is not None and end is not None:
        if abs(end - lost_at) > CLOSE * lost_at:
            troubles.append(f"its bracket ends at {end}, and its record of collapse ended it at {lost_at}")
    yield "its record of collapse, compared with itself; its levels were not measured again"
