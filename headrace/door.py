"""Does a fleet ask for keys, may it be opened to others, and is this key one of its?"""

from deployments.api_key import ApiKey
from deployments.fleet import Fleet
from deployments.key_ring import KeyRing
from deployments.openai_wire import ApiError
from headrace.ask import KEY_VARIABLE
from headrace.failure import Failure, bad_input
from headrace.stores import is_there, stored


def check_open(fleet: Fleet, name: str | None) -> None:
    """Refuses a fleet that lets others than this machine's users in while nobody needs a key for it. Raises Failure.

    `name`: of its run on this machine; None: it runs elsewhere, where its store is.
    """
    router = fleet.router
    if router.open is not None or router.lets_in is not False or fleet.tenants:
        return
    if stored_keys(fleet, name) if name is not None else fleet.store.url is not None:
        return
    make = "`headrace keys create --tenant NAME` makes one" if name is not None else "name `tenants` or a `store`"
    raise bad_input(
        f"router.host: {router.host} lets other machines in, and nobody needs a key: {make}; "
        "`router: {open: true}` lets anybody in"
    )


def asks_for_keys(fleet: Fleet, name: str) -> bool:
    """Whether who has none is refused. Raises Failure."""
    if fleet.router.lets_in is not None:
        return not fleet.router.lets_in
    return bool(fleet.tenants or stored_keys(fleet, name))


def key_for(fleet: Fleet, key: str | None, *, asks: bool, name: str) -> str | None:
    """The key that opens this fleet; None where nobody needs one, or nothing is asked. Raises Failure."""
    if not asks_for_keys(fleet, name):
        return None
    if not key:
        if asks:
            raise bad_input(f"--ask: this fleet asks for a key: give one by --key, or in {KEY_VARIABLE}")
        return None
    try:
        ring = KeyRing(fleet.tenants, lets_in=False, stored=stored_keys(fleet, name))
        ring.identify([(b"authorization", b"Bearer " + key.encode())])
    except ApiError:
        if asks:
            raise bad_input(f"--key or {KEY_VARIABLE}: is no key of this fleet") from None
        return None
    return key


def stored_keys(fleet: Fleet, name: str) -> list[ApiKey]:
    """Those of the fleet's store; none where that is not there yet. Raises Failure."""
    url = stored(fleet, name).store.url
    if url is None or not is_there(url):
        return []
    from deployments import stored_keys
    from deployments.store import Store, StoreError

    try:
        store = Store(url)
        keys = stored_keys.every(store)
        store.close()
    except StoreError as error:
        raise Failure(str(error)) from None
    return keys
