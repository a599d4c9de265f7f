"""Requests of runs, as sidecars have them."""


def certificates(method="cohen", name=None, estimate=None, **more):
    """The request of a run of certificates by this search and this estimate."""
    search = {"method": method, "name": name or {"cohen": "fixed", "qcrs": "golden", "ddrs": "ddrs"}[method]}
    estimate = estimate or {"name": "fixed", "bound": "clopper-pearson"}
    return {"kind": "certificates", "search": search, "estimate": estimate, **more}
